//! The way of a request through the queue and the network, for its trace.

use std::time::Instant;

use kembed_runtime::traces::Span;

/// When a request was queued, when the first of its inputs began to run, and when the last had run.
pub(super) struct Way {
    span: Span,
    queued: Instant,
    ran: Option<(Instant, Instant)>,
}

impl Way {
    pub(super) fn new(span: Span, queued: Instant) -> Self {
        Self { span, queued, ran: None }
    }

    /// Whether anybody reads it.
    pub(super) fn is_wanted(&self) -> bool {
        self.span.is_on()
    }

    /// An input of the request ran.
    pub(super) fn ran(&mut self, start: Instant, end: Instant) {
        let (first, last) = self.ran.unwrap_or((start, end));
        self.ran = Some((first.min(start), last.max(end)));
    }

    /// Tells it. An input that ran already when it was asked for again did not wait.
    pub(super) fn tell(&self) {
        if let Some((start, end)) = self.ran {
            let start = start.max(self.queued);
            self.span.past("queue", self.queued, start);
            self.span.past("run", start, end);
        }
    }
}
