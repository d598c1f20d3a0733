//! A second pod for a request that its first one takes long over. Whoever answers first wins, and the other is told that
//! nobody waits any more.

use std::time::{Duration, Instant};

use crate::credit::PodLoad;
use crate::figures::Stage;
use crate::hedge::Hedges;
use crate::ledger::{Outcome, PodId};
use crate::line::{Place, Ticket};
use crate::retry::{Budget, Failure};
use crate::wire::Lane;

use super::{Dispatcher, Grant, News, Request};

/// Where the hedge of a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hedge {
    /// Nowhere.
    #[default]
    No,
    /// A second pod has it in hand too.
    At(PodId),
    /// A second pod died while it had it. What that says of the request counts once the first pod is done.
    Broke,
}

/// How a hedge ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeEnd {
    /// The pod refused it untouched, and may have told its load.
    NoCredit(Option<PodLoad>),
    /// The pod failed before the first byte of an answer.
    Failed(Failure),
    /// The pod took longer than it may.
    TimedOut,
    /// It took longer than the client wanted to wait.
    TooLate,
}

impl<T> Dispatcher<T> {
    /// So many of 100 interactive requests may be given to a second pod; without a number none is.
    pub fn set_hedging(&mut self, percent: Option<u32>) {
        match (percent, &mut self.hedges) {
            (None, hedges) => *hedges = None,
            (Some(percent), Some(hedges)) => hedges.set_percent(percent),
            (Some(percent), hedges) => *hedges = Some(Hedges::new(percent)),
        }
    }

    /// How long after it was granted [`Dispatcher::hedge`] is to be asked about a request; `None` for never.
    pub fn hedge_after(&self, ticket: Ticket) -> Option<Duration> {
        let late = self.hedges.as_ref()?.late()?;
        self.requests.get(&ticket).filter(|request| request.may_be_hedged()).map(|_| late)
    }

    /// Gives a request that is late to a second pod too: if another one has credit to spare, few are given so, and it is
    /// neither bulk nor suspect. How that ends is said by [`Dispatcher::hedge_answered`] or [`Dispatcher::hedge_failed`];
    /// if the request itself ends before, so does this, and nothing is to be said.
    pub fn hedge(&mut self, ticket: Ticket, now: Instant) -> Option<Grant> {
        let hedges = self.hedges.as_mut()?;
        let request = self.requests.get_mut(&ticket).filter(|request| request.may_be_hedged())?;
        let (first, since) = request.at?;
        if now.saturating_duration_since(since) < hedges.late()? {
            return None;
        }
        let Place { lane, work, since, .. } = request.place;
        let pod = self.ledger.choose(lane, work, Some(first), now).filter(|pod| *pod != first)?;
        if !hedges.take() {
            return None;
        }
        request.hedge = Hedge::At(pod);
        self.ledger.take(pod, lane, work, false);
        self.interactive.pass(work, now);
        Some(Grant { ticket, pod, work, waited: now.saturating_duration_since(since) })
    }

    /// The second pod answered first, and may have told its load; the first one has `failed`, or is still at it. The
    /// request ends.
    #[must_use = "waiters must be told"]
    pub fn hedge_answered(
        &mut self,
        ticket: Ticket,
        load: Option<PodLoad>,
        failed: Option<Failure>,
        now: Instant,
    ) -> News<T> {
        let mut news = self.begin(now);
        if let Some((pod, place)) = self.out_of_second_hand(ticket, Outcome::Answered, now) {
            let taken = self.requests.get(&ticket).and_then(|request| request.at);
            let first = failed.map_or(Outcome::Left, |failure| Outcome::Failed(failure.fault()));
            if let Some((request, _)) = self.out_of_hand(ticket, first, now) {
                self.end(&request, Stage::InHand, Stage::Answered);
            }
            if let (Some(hedges), Some((_, since))) = (&mut self.hedges, taken) {
                hedges.observe(now.saturating_duration_since(since));
            }
            self.told(pod, place.bytes, load);
        }
        self.grant(now, &mut news);
        news
    }

    /// The second pod has no answer. The request stays with the first one.
    #[must_use = "waiters must be told"]
    pub fn hedge_failed(&mut self, ticket: Ticket, end: HedgeEnd, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        let outcome = match end {
            HedgeEnd::NoCredit(_) => Outcome::NoCredit,
            HedgeEnd::Failed(failure) => Outcome::Failed(failure.fault()),
            HedgeEnd::TimedOut => Outcome::Failed(Failure::Erred.fault()),
            HedgeEnd::TooLate => Outcome::Left,
        };
        if let Some((pod, _)) = self.out_of_second_hand(ticket, outcome, now) {
            if let HedgeEnd::NoCredit(Some(load)) = end {
                self.ledger.tell(pod, load);
            }
            if let (HedgeEnd::Failed(Failure::Broke), Some(request)) = (end, self.requests.get_mut(&ticket)) {
                request.hedge = Hedge::Broke;
            }
        }
        self.grant(now, &mut news);
        news
    }

    fn out_of_second_hand(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) -> Option<(PodId, Place)> {
        let request = self.requests.get_mut(&ticket)?;
        let Hedge::At(pod) = request.hedge else { return None };
        request.hedge = Hedge::No;
        let place = request.place;
        self.ledger.give(pod, place.lane, place.work, outcome, now);
        Some((pod, place))
    }
}

impl Request {
    /// It is known by now how its first pod fared.
    pub(super) fn suspect_if_hedge_broke(&mut self, budget: &mut Budget, now: Instant) {
        if self.hedge == Hedge::Broke {
            self.hedge = Hedge::No;
            // It is its first death, after which any request is tried again.
            self.history.judge(Failure::Broke, budget, now);
        }
    }

    fn may_be_hedged(&self) -> bool {
        let is_fresh = self.hedge == Hedge::No && !self.history.is_suspect();
        is_fresh && self.place.lane == Lane::Interactive && self.at.is_some()
    }
}
