//! Bodies on their way through, frame by frame.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{metrics::Exchange, upstream::PodBody};

/// What a request brings: bytes already read, or still coming.
pub type RequestBody = Either<Full<Bytes>, Incoming>;

/// What the gateway answers: its own words, or a pod's.
pub type AnswerBody = Either<Full<Bytes>, Passed>;

/// The error of any body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body that can be lent to one pod after the other, as long as nobody has read from it.
pub struct Lender(Arc<Mutex<Slot>>);

/// The body as one attempt sees it.
pub struct Lent(Arc<Mutex<Slot>>);

struct Slot {
    body: RequestBody,
    state: BodyState,
}

/// How far a request body has got: `Unread` -> `Read` -> `Broken`, never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// Nobody has asked for any of it.
    Unread,
    /// Some of it may be on its way to a pod.
    Read,
    /// The client's side of it failed.
    Broken,
}

impl Lender {
    /// Takes the body of a request.
    pub fn new(body: RequestBody) -> Self {
        Self(Arc::new(Mutex::new(Slot { body, state: BodyState::Unread })))
    }

    /// Lends it. Of several loans only one may be read from.
    pub fn lend(&self) -> Lent {
        Lent(self.0.clone())
    }

    /// How far it has got.
    pub fn state(&self) -> BodyState {
        lock(&self.0).state
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut slot = lock(&self.0);
        if slot.state == BodyState::Unread {
            slot.state = BodyState::Read;
        }
        let frame = ready!(Pin::new(&mut slot.body).poll_frame(context));
        if let Some(Err(_)) = frame {
            slot.state = BodyState::Broken;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).body.size_hint()
    }
}

/// A pod's body on its way to the client. It breaks off at a deadline, and the request counts as in flight until then.
pub struct Passed {
    body: PodBody,
    deadline: Instant,
    /// Some of it was passed on.
    has_begun: bool,
    /// Rings then. Most bodies are there at once, and need none.
    alarm: Option<Pin<Box<Sleep>>>,
    _exchange: Exchange,
}

/// The pod did not finish its answer in time. The head is gone by then, so that only the connection can tell it.
#[derive(Debug, thiserror::Error)]
#[error("the pod did not finish its answer in time")]
pub struct AnswerTimedOut;

impl Passed {
    /// Passes a pod's body on until `deadline`.
    pub fn new(body: PodBody, deadline: Instant, exchange: Exchange) -> Self {
        Self { body, deadline, has_begun: false, alarm: None, _exchange: exchange }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        // First, for a body that always has more would never let it come to that. Most have all at once.
        if this.has_begun && this.deadline <= Instant::now() {
            return Poll::Ready(Some(Err(AnswerTimedOut.into())));
        }
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_pending() {
            let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
            ready!(alarm.as_mut().poll(context));
            return Poll::Ready(Some(Err(AnswerTimedOut.into())));
        }
        this.has_begun = true;
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
