//! Decides for one service which request goes to which pod and when, and which is refused.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use crate::credit::PodLoad;
use crate::estimate::Estimate;
use crate::figures::{Figures, LaneFigures, Stage};
use crate::flow::Flow;
use crate::hedge::Hedges;
use crate::lanes::PATIENCE;
use crate::ledger::{Ledger, Outcome, Pod, PodId};
use crate::line::{Line, LineBounds, Place, Ticket, Waiting};
use crate::retry::{Budget, Failure, History, Past, Verdict};
use crate::wire::Lane;

mod hedging;

use hedging::Hedge;
pub use hedging::HedgeEnd;

/// The share of its pods' work that bulk has while interactive work fills them ([`PATIENCE`]).
const BULK_SHARE: f64 = 1. / (PATIENCE as f64 + 1.);

/// By how much longer a request may wait than was predicted, and still be done by its deadline: who is let in and then comes
/// too late costs the pods as much as who does not.
const MARGIN: f64 = 1.05;

/// The longest that a request may be at its pod, in times of the mean: a pod makes batches of equal length, and so does
/// not keep the order exactly.
const AT_POD: f64 = 2.;

/// Everything about the requests of one service at the gateway that owns it.
///
/// A request comes by [`enter`](Self::enter). Most are told at once what becomes of them: a [`Grant`], or a [`Refusal`]
/// which ends the request. Who has to wait makes a *waiter*, which is whatever its caller uses to hear from it (the sender
/// of a one-shot channel). Each waiter that goes in is told exactly once: in the [`News`] that this or a later call gives
/// back, and that must be passed on.
///
/// Who was granted sends the request to the pod, and then says by exactly one call how that went:
///
/// | what happened | call | the request |
/// |---|---|---|
/// | the pod began to answer | [`answered`](Self::answered) | ends |
/// | the pod had no credit | [`no_credit`](Self::no_credit) | waits again in its old place, with another waiter |
/// | it failed before the first byte of an answer | [`failed`](Self::failed) | the same, or is refused |
/// | the pod took too long | [`timed_out`](Self::timed_out) | ends |
/// | the client left, waiting or not, or its deadline passed | [`cancel`](Self::cancel) | ends |
///
/// After a request has ended all calls for it are ignored: so a guard may call `cancel` whenever it is dropped.
///
/// [`set_pods`](Self::set_pods) says which pods there are, and [`tick`](Self::tick) that time has passed: to be called at
/// [`next_tick`](Self::next_tick) if nothing else was called before. A call costs `O(log requests + pods)`, for each
/// request that it grants or refuses.
#[derive(Debug)]
pub struct Dispatcher<T> {
    config: Config,
    line: Line<T>,
    ledger: Ledger,
    /// All requests that have not ended.
    requests: HashMap<Ticket, Request, FixedState>,
    next: Ticket,
    estimate: Estimate,
    budget: Budget,
    /// If a second pod may be given what is late.
    hedges: Option<Hedges>,
    /// Interactive work that is granted.
    interactive: Flow,
    figures: Figures,
}

/// What the spec of a service says about waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How much may wait.
    pub bounds: LineBounds,
    /// How long a request may wait for a pod. Time at a pod that failed does not count.
    pub queue_timeout: Duration,
}

/// A request that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Bytes of its body.
    pub bytes: usize,
    /// Its lane.
    pub lane: Lane,
    /// When nobody wants its answer any more, if the client said so.
    pub deadline: Option<Instant>,
}

/// A request may go to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which request.
    pub ticket: Ticket,
    /// Where to.
    pub pod: PodId,
    /// Tokens that it was estimated to have.
    pub work: u64,
    /// How long since it came.
    pub waited: Duration,
}

/// Why a request gets no pod. It has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many wait as may.
    #[error("too many requests wait already")]
    Full {
        /// How long what waits is expected to take, if the pods' speed is known.
        wait: Option<Duration>,
    },
    /// It would not be done in time.
    #[error("what waits already takes longer than this request may wait")]
    TooLate {
        /// How long it would have waited.
        wait: Duration,
    },
    /// It was not given to a pod in time.
    #[error("no pod took the request within {} ms", .waited.as_millis())]
    Expired {
        /// How long it waited.
        waited: Duration,
    },
    /// Two pods died while they had it, the second with nothing else in hand.
    #[error("two pods died while they had this request, the second one with no other")]
    DiedTwice,
    /// Pods answered it with errors, and it is not tried again.
    #[error("the pods that were tried failed")]
    NoRetriesLeft,
}

impl Refusal {
    /// How long to wait before trying again, where that is known.
    pub fn wait(&self) -> Option<Duration> {
        match *self {
            Self::Full { wait } => wait,
            Self::TooLate { wait } => Some(wait),
            Self::Expired { .. } | Self::DiedTwice | Self::NoRetriesLeft => None,
        }
    }
}

/// The seconds of a `Retry-After` for a predicted wait: 1 to 60. Different seeds spread them by a fifth, so that those who
/// are refused together do not come back together.
pub fn retry_after(wait: Duration, seed: u64) -> u64 {
    let spread = 0.9 + 0.2 * (seed % 1024) as f64 / 1023.;
    ((wait.as_secs_f64() * spread).ceil() as u64).clamp(1, 60)
}

/// What a waiter is told.
#[derive(Debug)]
pub struct Told<T> {
    /// Whom to tell.
    pub waiter: T,
    /// What.
    pub word: Result<Grant, Refusal>,
}

/// Waiters to be told now, in this order.
pub type News<T> = Vec<Told<T>>;

/// What comes of a request that enters.
#[derive(Debug)]
pub struct Arrival<T> {
    /// Its number.
    pub ticket: Ticket,
    /// What it is told at once; `None` if its waiter is told, now or later.
    pub word: Option<Result<Grant, Refusal>>,
    /// Waiters to be told.
    pub news: News<T>,
}

#[derive(Debug)]
struct Request {
    place: Place,
    deadline: Option<Instant>,
    history: History,
    /// Where it failed last.
    avoid: Option<PodId>,
    /// Where it is, and since when, if it does not wait.
    at: Option<(PodId, Instant)>,
    hedge: Hedge,
}

impl<T> Dispatcher<T> {
    /// Nobody waits, and no pod is known.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            line: Line::new(config.bounds, now),
            ledger: Ledger::default(),
            requests: HashMap::default(),
            next: Ticket::FIRST,
            estimate: Estimate::default(),
            budget: Budget::new(now),
            hedges: None,
            interactive: Flow::new(now),
            figures: Figures::new(now),
        }
    }

    /// A request comes, after what it went through at other gateways: it stands where it would stand if it had come here
    /// first. If it has waited there it is not refused for lack of room or time, for it was let in; and whose pod died
    /// there is suspect here too. It is granted or refused at once, or waits: only then its waiter is made, and told now or
    /// later.
    #[must_use = "waiters must be told"]
    pub fn enter(&mut self, ask: Ask, past: Past, waiter: impl FnOnce() -> T, now: Instant) -> Arrival<T> {
        let (waited, history) = (past.waited, past.history.unwrap_or_default());
        let mut news = self.begin(now);
        let (ticket, work) = (self.next, self.estimate.of(ask.bytes));
        self.next = ticket.next();
        self.budget.earn();
        if let (Some(hedges), Lane::Interactive) = (&mut self.hedges, ask.lane) {
            hedges.earn();
        }
        self.lane(ask.lane).come(work);
        let since = now.checked_sub(waited).unwrap_or(now);
        let queue_end = since + self.config.queue_timeout;
        let until = ask.deadline.map_or(queue_end, |deadline| deadline.min(queue_end));
        let due = Place::due(until, since);
        let place = Place { ticket, lane: ask.lane, since, due, until, work, bytes: ask.bytes };
        let admitted = if waited.is_zero() { self.admit(&place, ask.deadline, now) } else { Ok(()) };
        let word = match admitted {
            Ok(()) => {
                let pod = self.pod_at_once(&place, history, now);
                let (deadline, at, hedge) = (ask.deadline, pod.map(|pod| (pod, now)), Hedge::No);
                let request = Request { place, deadline, history, avoid: None, at, hedge };
                self.requests.insert(ticket, request);
                self.lane(ask.lane).step(None, Stage::Waiting, work);
                if pod.is_none() {
                    self.line.put(place, history.is_suspect(), waiter());
                }
                pod.map(|pod| Ok(self.give(place, pod, false, now)))
            }
            Err(refusal) => {
                self.lane(ask.lane).step(None, Stage::Refused, work);
                Some(Err(refusal))
            }
        };
        self.grant(now, &mut news);
        Arrival { ticket, word, news }
    }

    /// The pod began to answer, whatever the answer is, and may have told its load.
    #[must_use = "waiters must be told"]
    pub fn answered(&mut self, ticket: Ticket, load: Option<PodLoad>, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        if let Some((request, pod)) = self.out_of_hand(ticket, Outcome::Answered, now) {
            self.end(&request, Stage::InHand, Stage::Answered);
            self.told(pod, request.place.bytes, load);
        }
        self.grant(now, &mut news);
        news
    }

    /// The pod refused the request untouched for lack of credit. It waits again in its old place, as if nothing had been.
    #[must_use = "waiters must be told"]
    pub fn no_credit(&mut self, ticket: Ticket, load: Option<PodLoad>, waiter: T, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        if let Some((mut request, pod)) = self.out_of_hand(ticket, Outcome::NoCredit, now) {
            if let Some(load) = load {
                self.ledger.tell(pod, load);
            }
            request.suspect_if_hedge_broke(&mut self.budget, now);
            self.put_back(request, waiter);
        }
        self.grant(now, &mut news);
        news
    }

    /// The request failed before the first byte of an answer. It waits again in its old place, or is refused.
    #[must_use = "waiters must be told"]
    pub fn failed(&mut self, ticket: Ticket, failure: Failure, waiter: T, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        if let Some((mut request, pod)) = self.out_of_hand(ticket, Outcome::Failed(failure.fault()), now) {
            request.avoid = Some(pod);
            request.suspect_if_hedge_broke(&mut self.budget, now);
            let refusal = match request.history.judge(failure, &mut self.budget, now) {
                Verdict::Again => None,
                Verdict::DiedTwice => Some(Refusal::DiedTwice),
                Verdict::NoRetriesLeft => Some(Refusal::NoRetriesLeft),
            };
            match refusal {
                None => self.put_back(request, waiter),
                Some(refusal) => {
                    self.end(&request, Stage::InHand, Stage::Refused);
                    news.push(Told { waiter, word: Err(refusal) });
                }
            }
        }
        self.grant(now, &mut news);
        news
    }

    /// The pod took longer over the request than it may.
    #[must_use = "waiters must be told"]
    pub fn timed_out(&mut self, ticket: Ticket, now: Instant) -> News<T> {
        self.leave(ticket, Outcome::Failed(Failure::Erred.fault()), now)
    }

    /// The client left. If the request waits, its waiter is dropped.
    #[must_use = "waiters must be told"]
    pub fn cancel(&mut self, ticket: Ticket, now: Instant) -> News<T> {
        self.leave(ticket, Outcome::Left, now)
    }

    /// These pods may get requests, and no others: neither those that end nor those that are not ready. What is in hand
    /// at others goes on.
    #[must_use = "waiters must be told"]
    pub fn set_pods(&mut self, pods: impl IntoIterator<Item = PodId>, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        self.ledger.set_pods(pods);
        self.grant(now, &mut news);
        news
    }

    /// The spec changed. What waits keeps its place and its time.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        self.line.set_bounds(config.bounds);
    }

    /// Time has passed.
    #[must_use = "waiters must be told"]
    pub fn tick(&mut self, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        self.grant(now, &mut news);
        news
    }

    /// When to call [`Dispatcher::tick`], if nothing else is called before; later than `now`. `None` while nobody waits.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        let expiry = self.line.next_expiry()?;
        Some(self.ledger.next_opening(now).map_or(expiry, |opening| opening.min(expiry)))
    }

    /// Ends all requests that wait, and gives back their waiters, in the order in which they came, and what each went
    /// through: the service is gone, or another gateway owns it.
    pub fn give_up_waiting(&mut self, now: Instant) -> Vec<(T, History)> {
        self.figures.pass(now);
        let mut waiters = Vec::new();
        while let Some(Waiting { place, waiter }) = self.line.oldest().and_then(|t| self.line.take(t)) {
            let request = self.requests.remove(&place.ticket);
            self.lane(place.lane).step(Some(Stage::Waiting), Stage::Left, place.work);
            waiters.push((waiter, request.map(|request| request.history).unwrap_or_default()));
        }
        waiters
    }

    /// How long a request of this lane would wait if it came now and named no deadline. `None` while that is unknown:
    /// there are no pods, or none was measured yet.
    pub fn predicted_wait(&self, lane: Lane, now: Instant) -> Option<Duration> {
        let due = Place::due(now + self.config.queue_timeout, now);
        seconds(self.line.work_before(lane, due) as f64 / self.rate(lane, now)?)
    }

    /// What waits, is in hand, came and went until now.
    pub fn figures(&mut self, now: Instant) -> Figures {
        self.figures.pass(now);
        self.figures
    }

    /// What is known of each pod.
    pub fn pods(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        self.ledger.pods()
    }

    /// Requests that have not ended, waiting or in hand.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether all requests have ended.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Bytes of the bodies that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.line.bytes()
    }

    fn admit(&self, place: &Place, deadline: Option<Instant>, now: Instant) -> Result<(), Refusal> {
        let Place { lane, work, .. } = *place;
        let rate = self.rate(lane, now);
        let before = self.line.work_before(lane, place.due) as f64;
        let wait = rate.and_then(|rate| seconds(before / rate));
        if !self.line.has_room(lane, place.bytes) {
            return Err(Refusal::Full { wait });
        }
        let Some((rate, wait)) = rate.zip(wait) else { return Ok(()) };
        let in_hand: u64 = self.ledger.pods().map(|(_, pod)| pod.in_hand(lane)).sum();
        let at_pod = (in_hand + work) as f64 * AT_POD;
        let done = seconds((before * MARGIN + at_pod) / rate).unwrap_or(wait);
        let late = |instant: Instant, time: Duration| now.checked_add(time).is_none_or(|at| at > instant);
        if late(place.until, wait) || deadline.is_some_and(|deadline| late(deadline, done)) {
            return Err(Refusal::TooLate { wait });
        }
        Ok(())
    }

    /// Tokens a second that a lane may count on.
    fn rate(&self, lane: Lane, now: Instant) -> Option<f64> {
        let rate = self.ledger.rate().filter(|rate| *rate > 0.)?;
        Some(match lane {
            Lane::Interactive if self.line.work(Lane::Bulk) > 0 => rate * (1. - BULK_SHARE),
            Lane::Interactive => rate,
            Lane::Bulk => (rate - self.interactive.rate(now)).max(rate * BULK_SHARE),
        })
    }

    /// Brings everything up to now.
    fn begin(&mut self, now: Instant) -> News<T> {
        self.figures.pass(now);
        let mut news = Vec::new();
        self.expire(now, &mut news);
        news
    }

    fn expire(&mut self, now: Instant, news: &mut News<T>) {
        while let Some(Waiting { place, waiter }) = self.line.expire(now) {
            self.requests.remove(&place.ticket);
            self.lane(place.lane).step(Some(Stage::Waiting), Stage::Refused, place.work);
            let waited = now.saturating_duration_since(place.since);
            news.push(Told { waiter, word: Err(Refusal::Expired { waited }) });
        }
    }

    /// Gives pods what they may have.
    fn grant(&mut self, now: Instant, news: &mut News<T>) {
        // What came back may be past its time.
        self.expire(now, news);
        while let Some(pod) = self.ledger.choose_alone(self.line.suspects(), now) {
            let Some(&place) = self.line.first_suspect() else { break };
            self.hand(place, pod, true, now, news);
        }
        for lane in [Lane::Interactive, Lane::Bulk] {
            while let Some(&place) = self.line.first(lane) {
                let avoid = self.requests.get(&place.ticket).and_then(|request| request.avoid);
                let Some(pod) = self.ledger.choose(lane, place.work, avoid, now) else { break };
                self.hand(place, pod, false, now, news);
            }
        }
    }

    /// The pod that [`Dispatcher::grant`] would give a request that just came, if nobody else waits. Most find it so, and to
    /// put them into an empty line and take them out again would be half of what is done for them here.
    fn pod_at_once(&mut self, place: &Place, history: History, now: Instant) -> Option<PodId> {
        let is_first = self.line.is_empty() && !history.is_suspect() && place.until > now;
        is_first.then(|| self.ledger.choose(place.lane, place.work, None, now)).flatten()
    }

    /// Takes a request out of the line, and gives it to a pod.
    fn hand(&mut self, place: Place, pod: PodId, alone: bool, now: Instant, news: &mut News<T>) {
        let Some(Waiting { waiter, .. }) = self.line.take(place.ticket) else { return };
        if let Some(request) = self.requests.get_mut(&place.ticket) {
            request.at = Some((pod, now));
        }
        news.push(Told { waiter, word: Ok(self.give(place, pod, alone, now)) });
    }

    /// A pod gets a request.
    fn give(&mut self, place: Place, pod: PodId, alone: bool, now: Instant) -> Grant {
        let Place { ticket, lane, work, since, .. } = place;
        self.ledger.take(pod, lane, work, alone);
        if lane == Lane::Interactive {
            self.interactive.pass(work, now);
        }
        self.lane(lane).step(Some(Stage::Waiting), Stage::InHand, work);
        Grant { ticket, pod, work, waited: now.saturating_duration_since(since) }
    }

    /// Takes a request from the pod that has it. `None` if no pod has.
    fn out_of_hand(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Option<(Request, PodId)> {
        let (pod, since) = self.requests.get(&ticket)?.at?;
        let mut request = self.requests.remove(&ticket)?;
        let Place { lane, work, until, .. } = request.place;
        self.ledger.give(pod, lane, work, outcome, now);
        if let Hedge::At(second) = request.hedge {
            self.ledger.give(second, lane, work, Outcome::Left, now);
            request.hedge = Hedge::No;
        }
        if let (Some(hedges), Outcome::Answered, Lane::Interactive) = (&mut self.hedges, outcome, lane) {
            hedges.observe(now.saturating_duration_since(since));
        }
        let later = until + now.saturating_duration_since(since);
        request.place.until = request.deadline.map_or(later, |deadline| deadline.min(later));
        request.at = None;
        Some((request, pod))
    }

    /// A pod answered a request of so many bytes, and may have told its load.
    fn told(&mut self, pod: PodId, bytes: usize, load: Option<PodLoad>) {
        let Some(load) = load else { return };
        self.ledger.tell(pod, load);
        if load.work > 0 {
            self.estimate.observe(bytes, load.work);
        }
    }

    fn put_back(&mut self, request: Request, waiter: T) {
        let place = request.place;
        self.line.put(place, request.history.is_suspect(), waiter);
        self.lane(place.lane).step(Some(Stage::InHand), Stage::Waiting, place.work);
        self.requests.insert(place.ticket, request);
    }

    fn leave(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> News<T> {
        let mut news = self.begin(now);
        if let Some((request, _)) = self.out_of_hand(ticket, outcome, now) {
            self.end(&request, Stage::InHand, Stage::Left);
        } else if let Some(Waiting { place, .. }) = self.line.take(ticket) {
            self.requests.remove(&ticket);
            self.lane(place.lane).step(Some(Stage::Waiting), Stage::Left, place.work);
        }
        self.grant(now, &mut news);
        news
    }

    fn end(&mut self, request: &Request, from: Stage, to: Stage) {
        let Place { lane, work, .. } = request.place;
        self.lane(lane).step(Some(from), to, work);
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneFigures {
        match lane {
            Lane::Interactive => &mut self.figures.interactive,
            Lane::Bulk => &mut self.figures.bulk,
        }
    }
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}
