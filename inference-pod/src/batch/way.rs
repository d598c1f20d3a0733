//! The way of a request through the queue and the network, for its client and its trace.

use std::time::{Duration, Instant};

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

    /// An input of the request ran.
    pub(super) fn ran(&mut self, start: Instant, end: Instant) {
        let (first, last) = self.ran.unwrap_or((start, end));
        self.ran = Some((first.min(start), last.max(end)));
    }

    /// Tells it: how long the request waited, and ran. An input that ran already when it was asked for again did not
    /// wait.
    pub(super) fn tell(&self) -> (Duration, Duration) {
        let Some((start, end)) = self.ran else { return Default::default() };
        let start = start.max(self.queued);
        self.span.past("queue", self.queued, start);
        self.span.past("run", start, end);
        (start.duration_since(self.queued), end.saturating_duration_since(start))
    }
}
