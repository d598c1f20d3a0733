//! The place of one request at its service's queue, from when it comes until it ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use kembed_queue::{Failure, News, Ticket, credit::PodLoad, dispatcher::HedgeEnd, wire::Lane};
use tokio::sync::oneshot;

use super::{
    metrics::Stay,
    service_queue::{Ended, Granted, Letters, ServiceQueue, State, Waiter, Word},
};

/// A request that waits or is at a pod. When this is dropped its place is free, whatever it was.
#[must_use = "it gives its place up when it is dropped"]
pub struct Turn {
    queue: Arc<ServiceQueue>,
    ticket: Ticket,
    next: Next,
    stage: Stage,
    stay: Stay,
}

/// The word that a request gets next.
pub(super) enum Next {
    /// It got that when it came. `None` once it was told.
    Told(Option<Word>),
    /// It comes.
    Coming(oneshot::Receiver<Word>),
}

/// `Waiting -> InHand -> Ended`, and back to `Waiting` if the pod could not do it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    InHand,
    Ended,
}

impl Turn {
    pub(super) fn new(queue: Arc<ServiceQueue>, ticket: Ticket, lane: Lane, next: Next) -> Self {
        let stay = queue.metrics.stay(lane);
        queue.waiting.fetch_add(1, Ordering::Relaxed);
        Self { queue, ticket, next, stage: Stage::Waiting, stay }
    }

    /// Waits to be told a pod.
    ///
    /// # Errors
    /// Why there is none. Then the request has ended.
    pub async fn wait(&mut self) -> Word {
        let word = match &mut self.next {
            Next::Told(word) => word.take(),
            Next::Coming(word) => word.await.ok(),
        };
        let word = word.unwrap_or(Err(Ended::Closing));
        match &word {
            Ok(granted) => {
                self.enter(Stage::InHand);
                self.stay.granted(granted.grant.waited);
            }
            Err(_) => self.enter(Stage::Ended),
        }
        word
    }

    /// The pod began to answer, and may have told its load.
    pub fn answered(mut self, load: Option<PodLoad>) {
        self.enter(Stage::Ended);
        self.tell(|state, ticket, now| state.dispatcher.answered(ticket, load, now));
    }

    /// The pod took too long.
    pub fn timed_out(mut self) {
        self.enter(Stage::Ended);
        self.blame(|state, ticket, now| state.dispatcher.timed_out(ticket, now));
    }

    /// The pod had no credit: the request waits again.
    pub fn no_credit(&mut self, load: Option<PodLoad>) {
        let waiter = self.again();
        self.tell(|state, ticket, now| state.dispatcher.no_credit(ticket, load, waiter, now));
    }

    /// The pod failed before the first byte of an answer: the request waits again, or is told that it does not.
    pub fn failed(&mut self, failure: Failure) {
        let waiter = self.again();
        self.blame(|state, ticket, now| state.dispatcher.failed(ticket, failure, waiter, now));
    }

    /// The pod takes long: another one may have the request too, if there is one to spare.
    pub fn hedge(&self) -> Option<Granted> {
        self.queue.act(|state, now| {
            let grant = state.dispatcher.hedge(self.ticket, now);
            (grant.and_then(|grant| state.granted(grant)), Letters::new())
        })
    }

    /// That other pod answered first, and may have told its load; the first one may have failed before.
    pub fn hedge_answered(mut self, load: Option<PodLoad>, failed: Option<Failure>) {
        self.enter(Stage::Ended);
        self.blame(|state, ticket, now| state.dispatcher.hedge_answered(ticket, load, failed, now));
    }

    /// That other pod has no answer.
    pub fn hedge_failed(&self, end: HedgeEnd) {
        self.blame(|state, ticket, now| state.dispatcher.hedge_failed(ticket, end, now));
    }

    fn again(&mut self) -> Waiter {
        let (waiter, word) = oneshot::channel();
        self.next = Next::Coming(word);
        self.enter(Stage::Waiting);
        self.stay.returned();
        waiter
    }

    fn enter(&mut self, stage: Stage) {
        match (self.stage == Stage::Waiting, stage == Stage::Waiting) {
            (true, false) => self.queue.waiting.fetch_sub(1, Ordering::Relaxed),
            (false, true) => self.queue.waiting.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        self.stage = stage;
    }

    /// Tells what may have its pod ejected.
    fn blame(&self, tell: impl FnOnce(&mut State, Ticket, Instant) -> News<Waiter>) {
        let is_ejected = self.queue.act(|state, now| {
            let before = state.ejected();
            let news = tell(state, self.ticket, now);
            (state.ejected() > before, state.letters(news))
        });
        if is_ejected {
            self.queue.metrics.ejected();
        }
    }

    fn tell(&self, tell: impl FnOnce(&mut State, Ticket, Instant) -> News<Waiter>) {
        self.queue.act(|state, now| {
            let news = tell(state, self.ticket, now);
            ((), state.letters(news))
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            self.enter(Stage::Ended);
            self.tell(|state, ticket, now| state.dispatcher.cancel(ticket, now));
        }
    }
}
