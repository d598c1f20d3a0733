//! Parts of a request's way, as its trace tells them.

use http::HeaderMap;
use kembed_runtime::traces::Span;

/// A part of the way that a request is on; it is over when this is dropped. Nothing at all where traces are off.
#[must_use = "it is over when it is dropped"]
pub struct Leg {
    span: Span,
    outcome: Outcome,
}

/// How one ended.
#[derive(Clone, Copy)]
struct Outcome {
    /// A word out of a bounded set.
    label: &'static str,
    is_failure: bool,
}

/// Nobody wants it any more.
const CANCELLED: Outcome = Outcome { label: "cancelled", is_failure: false };

impl Leg {
    /// The request waits here.
    pub fn hold() -> Self {
        Self::of(Span::current().part("hold"))
    }

    /// It is about to be sent to a pod with these headers, which then name this part. Of which one is not always known.
    pub fn attempt(pod: Option<&str>, headers: &mut HeaderMap) -> Self {
        Self::sent("attempt", pod.map(|pod| ("kembed.pod", pod)), headers)
    }

    /// It is about to be sent to another gateway with these headers, which then name this part.
    pub fn forward(gateway: &str, headers: &mut HeaderMap) -> Self {
        Self::sent("forward", Some(("kembed.gateway", gateway)), headers)
    }

    fn sent(name: &'static str, to: Option<(&'static str, &str)>, headers: &mut HeaderMap) -> Self {
        let span = Span::current().of_sent_request(name);
        span.propagate(headers);
        if let Some((key, name)) = to.filter(|_| span.is_on()) {
            span.set(key, name.to_owned());
        }
        Self::of(span)
    }

    fn of(span: Span) -> Self {
        Self { span, outcome: CANCELLED }
    }

    /// It is over, with this outcome out of a bounded set.
    pub fn ended(mut self, label: &'static str, is_failure: bool) {
        self.outcome = Outcome { label, is_failure };
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        let Outcome { label, is_failure } = self.outcome;
        self.span.set("kembed.outcome", label);
        self.span.end(is_failure);
    }
}
