//! A naive model of a dispatcher, which says what should come of each step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kembed_queue::credit::PodLoad;
use kembed_queue::dispatcher::{HedgeEnd, Refusal};
use kembed_queue::estimate::Estimate;
use kembed_queue::figures::LaneFigures;
use kembed_queue::line::OVERTAKING;
use kembed_queue::retry::ATTEMPTS;
use kembed_queue::wire::Lane;
use kembed_queue::{Ask, Dispatcher, Failure, Grant, News, PodId, Ticket};
use proptest::prelude::*;

use super::arrive::Arrive;
use super::{CONFIG, QUEUE_TIMEOUT, ROOM};

/// Hedges for 100 interactive requests.
pub const HEDGED: u32 = 20;

/// What is answered at once is never late.
const LATE: Duration = Duration::from_micros(1);

/// What may happen. A number chooses among the requests that it can happen to.
#[derive(Clone, Debug)]
pub enum Step {
    Arrive { bytes: usize, lane: Lane, patience: Option<u64> },
    Pods(BTreeSet<u64>),
    Answer { which: usize, load: Option<PodLoad> },
    NoCredit { which: usize, load: Option<PodLoad> },
    Fail { which: usize, failure: Failure },
    TimeOut { which: usize },
    Hedge { which: usize },
    HedgeAnswer { which: usize, load: Option<PodLoad>, failed: Option<Failure> },
    HedgeFail { which: usize, end: HedgeEnd },
    Cancel { which: usize },
    Wait { ms: u64 },
    GiveUp,
}

fn lane() -> impl Strategy<Value = Lane> {
    prop_oneof![2 => Just(Lane::Interactive), 1 => Just(Lane::Bulk)]
}

fn load() -> impl Strategy<Value = Option<PodLoad>> {
    let numbers = (prop_oneof![0u64..60, 200u64..900], 0u64..200, 0u64..5000, 0u64..5);
    let load = numbers.prop_map(|(credit, work, rate, sessions)| PodLoad { credit, work, rate, sessions });
    proptest::option::weighted(0.8, load)
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![Just(Failure::Unreached), Just(Failure::Unready), Just(Failure::Broke), Just(Failure::Erred)]
}

fn hedge_end() -> impl Strategy<Value = HedgeEnd> {
    let failed = failure().prop_map(HedgeEnd::Failed);
    prop_oneof![
        load().prop_map(HedgeEnd::NoCredit),
        failed,
        Just(HedgeEnd::TimedOut),
        Just(HedgeEnd::TooLate)
    ]
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let arrive = (50usize..4000, lane(), proptest::option::weighted(0.3, 1u64..20_000))
        .prop_map(|(bytes, lane, patience)| Step::Arrive { bytes, lane, patience });
    let which = any::<usize>;
    let step = prop_oneof![
        12 => arrive,
        2 => proptest::collection::btree_set(0u64..4, 0..4).prop_map(Step::Pods),
        8 => (which(), load()).prop_map(|(which, load)| Step::Answer { which, load }),
        2 => (which(), load()).prop_map(|(which, load)| Step::NoCredit { which, load }),
        3 => (which(), failure()).prop_map(|(which, failure)| Step::Fail { which, failure }),
        1 => which().prop_map(|which| Step::TimeOut { which }),
        3 => which().prop_map(|which| Step::Hedge { which }),
        2 => (which(), load(), proptest::option::weighted(0.3, failure()))
            .prop_map(|(which, load, failed)| Step::HedgeAnswer { which, load, failed }),
        1 => (which(), hedge_end()).prop_map(|(which, end)| Step::HedgeFail { which, end }),
        2 => which().prop_map(|which| Step::Cancel { which }),
        4 => prop_oneof![0u64..40, 0u64..9000].prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::GiveUp),
    ];
    proptest::collection::vec(step, 0..150)
}

/// A request in the model.
#[derive(Clone, Debug)]
pub struct Request {
    lane: Lane,
    work: u64,
    bytes: usize,
    came: Instant,
    due: Instant,
    pub state: State,
    deaths: u32,
    errors: u32,
    granted: Instant,
    /// A second pod that has it in hand.
    hedge: Option<PodId>,
    /// A second pod died of it, which counts once the first one is done.
    hedge_broke: bool,
}

impl Request {
    fn is_at(&self, pod: PodId) -> bool {
        self.state == State::InHand(pod) || self.hedge == Some(pod)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its waiter's number.
    Waits(u64),
    InHand(PodId),
    Ended,
}

/// A dispatcher, and what it should come to.
pub struct Model {
    pub dispatcher: Dispatcher<u64>,
    pub now: Instant,
    estimate: Estimate,
    pub requests: BTreeMap<Ticket, Request>,
    /// Waiters that were not told yet.
    pub untold: BTreeMap<u64, Ticket>,
    waiters: u64,
    /// Of so many interactive requests so many were hedged.
    hedged: (usize, usize),
    pub joined: BTreeSet<u64>,
    /// Nanoseconds of a request and of a token: waiting and in hand, by lane.
    integrals: BTreeMap<(Lane, bool), (u128, u128)>,
}

impl Model {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            dispatcher: Dispatcher::new(CONFIG, now),
            now,
            estimate: Estimate::default(),
            requests: BTreeMap::new(),
            untold: BTreeMap::new(),
            waiters: 0,
            hedged: (0, 0),
            joined: BTreeSet::new(),
            integrals: BTreeMap::new(),
        }
    }

    pub fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Arrive { bytes, lane, patience } => {
                self.arrive(bytes, lane, patience.map(Duration::from_millis));
            }
            Step::Pods(pods) => {
                self.joined = pods;
                let news = self.dispatcher.set_pods(self.joined.iter().copied().map(PodId), now);
                self.hear(news);
            }
            Step::Answer { which, load } => {
                let Some(ticket) = self.in_hand(which) else { return };
                self.answer(ticket, load);
            }
            Step::NoCredit { which, load } => {
                let Some(ticket) = self.in_hand(which) else { return };
                self.first_is_done(ticket);
                let waiter = self.waits(ticket);
                let news = self.dispatcher.no_credit(ticket, load, waiter, now);
                self.hear(news);
            }
            Step::Fail { which, failure } => {
                let Some(ticket) = self.in_hand(which) else { return };
                self.fail(ticket, failure);
            }
            Step::Hedge { which } => {
                let Some(ticket) = self.in_hand(which) else { return };
                self.hedge(ticket);
            }
            Step::HedgeAnswer { which, load, failed } => {
                let Some(ticket) = self.in_second_hand(which) else { return };
                self.ends(ticket);
                let bytes = self.request(ticket).bytes;
                if let Some(load) = load.filter(|load| load.work > 0) {
                    self.estimate.observe(bytes, load.work);
                }
                let news = self.dispatcher.hedge_answered(ticket, load, failed, now);
                self.hear(news);
            }
            Step::HedgeFail { which, end } => {
                let Some(ticket) = self.in_second_hand(which) else { return };
                let request = self.request(ticket);
                request.hedge = None;
                request.hedge_broke = end == HedgeEnd::Failed(Failure::Broke);
                let news = self.dispatcher.hedge_failed(ticket, end, now);
                self.hear(news);
            }
            Step::TimeOut { which } => {
                let Some(ticket) = self.in_hand(which) else { return };
                self.ends(ticket);
                let news = self.dispatcher.timed_out(ticket, now);
                self.hear(news);
            }
            Step::Cancel { which } => {
                let living: Vec<_> = self.living().map(|(ticket, _)| ticket).collect();
                if living.is_empty() {
                    return;
                }
                let ticket = living[which % living.len()];
                if let State::Waits(waiter) = self.request(ticket).state {
                    self.untold.remove(&waiter);
                }
                self.ends(ticket);
                let news = self.dispatcher.cancel(ticket, now);
                self.hear(news);
                let again = self.dispatcher.cancel(ticket, now);
                assert!(again.is_empty(), "what has ended is ignored");
            }
            Step::Wait { ms } => self.pass(Duration::from_millis(ms)),
            Step::GiveUp => {
                let waiters = self.dispatcher.give_up_waiting(now);
                assert!(waiters.len() == self.untold.len(), "all that wait, and no others");
                for (waiter, history) in waiters {
                    let ticket = self.untold.remove(&waiter).expect("it was not told before");
                    let request = self.request(ticket);
                    request.state = State::Ended;
                    assert_eq!(history.is_suspect(), request.deaths > 0, "it takes along how it failed");
                }
            }
        }
        self.check();
    }

    pub fn arrive(&mut self, bytes: usize, lane: Lane, patience: Option<Duration>) -> Ticket {
        let now = self.now;
        let (deadline, work) = (patience.map(|time| now + time), self.estimate.of(bytes));
        let has_room = self.untold.len() < ROOM && self.waiting_bytes() + bytes <= CONFIG.bounds.bytes;
        let due = now + patience.unwrap_or(OVERTAKING).min(OVERTAKING);
        self.waiters += 1;
        let (ticket, news) = self.dispatcher.arrive(Ask { bytes, lane, deadline }, self.waiters, now);
        let state = State::Waits(self.waiters);
        self.hedged.0 += usize::from(lane == Lane::Interactive);
        let request = Request {
            lane,
            work,
            bytes,
            came: now,
            due,
            state,
            deaths: 0,
            errors: 0,
            granted: now,
            hedge: None,
            hedge_broke: false,
        };
        assert!(self.requests.insert(ticket, request).is_none(), "no ticket is used twice");
        self.untold.insert(self.waiters, ticket);
        self.hear(news);
        assert!(has_room || self.request(ticket).state == State::Ended, "what waits is bounded");
        ticket
    }

    pub fn answer(&mut self, ticket: Ticket, load: Option<PodLoad>) {
        self.ends(ticket);
        let bytes = self.request(ticket).bytes;
        if let Some(load) = load.filter(|load| load.work > 0) {
            self.estimate.observe(bytes, load.work);
        }
        let news = self.dispatcher.answered(ticket, load, self.now);
        self.hear(news);
    }

    fn ends(&mut self, ticket: Ticket) {
        let request = self.request(ticket);
        (request.state, request.hedge) = (State::Ended, None);
    }

    /// The first pod has no answer: what its hedge has in hand is taken back, and if it died of it, that counts now.
    fn first_is_done(&mut self, ticket: Ticket) {
        let request = self.request(ticket);
        request.deaths += u32::from(request.hedge_broke);
        (request.hedge, request.hedge_broke) = (None, false);
    }

    fn hedge(&mut self, ticket: Ticket) {
        let before = self.request(ticket).clone();
        let Some(grant) = self.dispatcher.hedge(ticket, self.now) else { return };
        let State::InHand(first) = before.state else { panic!("only what a pod has is late") };
        assert!(
            before.lane == Lane::Interactive
                && before.deaths == 0
                && before.hedge.is_none()
                && !before.hedge_broke,
            "few may be hedged, and at one pod at a time"
        );
        assert_eq!((grant.ticket, grant.work, grant.waited), (ticket, before.work, self.now - before.came));
        assert!(grant.pod != first && self.joined.contains(&grant.pod.0), "another pod that gets requests");
        assert!(self.now - before.granted >= LATE, "it is late");
        let there: Vec<_> = self.living().filter(|(_, r)| r.is_at(grant.pod)).map(|(_, r)| r).collect();
        assert!(there.iter().all(|other| other.deaths == 0), "a suspect has its pod for itself");
        let work: u64 = there.iter().filter(|other| other.lane == before.lane).map(|other| other.work).sum();
        assert!(work < self.credit(grant.pod), "nothing beyond the credit and one request");
        let request = self.request(ticket);
        request.hedge = Some(grant.pod);
        self.hedged.1 += 1;
        let (came, hedged) = self.hedged;
        assert!(hedged * 100 <= came * HEDGED as usize, "{hedged} of {came} were hedged");
    }

    pub fn fail(&mut self, ticket: Ticket, failure: Failure) {
        self.first_is_done(ticket);
        match failure {
            Failure::Broke => self.request(ticket).deaths += 1,
            Failure::Erred => self.request(ticket).errors += 1,
            Failure::Unreached | Failure::Unready => {}
        }
        let waiter = self.waits(ticket);
        let news = self.dispatcher.failed(ticket, failure, waiter, self.now);
        self.hear(news);
    }

    fn waits(&mut self, ticket: Ticket) -> u64 {
        self.waiters += 1;
        self.untold.insert(self.waiters, ticket);
        self.request(ticket).state = State::Waits(self.waiters);
        self.waiters
    }

    pub fn pass(&mut self, time: Duration) {
        for (_, request) in self.requests.iter().filter(|(_, r)| r.state != State::Ended) {
            let key = (request.lane, matches!(request.state, State::InHand(_)));
            let (requests, work) = self.integrals.entry(key).or_default();
            *requests += time.as_nanos();
            *work += time.as_nanos() * u128::from(request.work);
        }
        self.now += time;
        let news = self.dispatcher.tick(self.now);
        self.hear(news);
    }

    fn hear(&mut self, news: News<u64>) {
        for told in news {
            let ticket = self.untold.remove(&told.waiter).expect("a waiter is told once");
            assert_eq!(self.request(ticket).state, State::Waits(told.waiter));
            match told.word {
                Ok(grant) => self.granted(ticket, grant),
                Err(refusal) => self.refused(ticket, refusal),
            }
        }
    }

    fn granted(&mut self, ticket: Ticket, grant: Grant) {
        let Request { lane, work, came, due, deaths, .. } = *self.request(ticket);
        assert_eq!((grant.ticket, grant.work, grant.waited), (ticket, work, self.now - came));
        assert!(self.joined.contains(&grant.pod.0), "only pods that may get requests do");
        let there: Vec<_> =
            self.living().filter(|(_, r)| r.is_at(grant.pod)).map(|(_, r)| r.clone()).collect();
        assert!(there.iter().all(|other| other.deaths == 0), "a suspect has its pod for itself");
        if deaths > 0 {
            assert!(there.is_empty(), "a suspect finds its pod empty");
        } else {
            let work: u64 = there.iter().filter(|other| other.lane == lane).map(|other| other.work).sum();
            assert!(work < self.credit(grant.pod), "nothing beyond the credit and one request");
            for (other, request) in self.living().filter(|(_, r)| r.lane == lane && r.deaths == 0) {
                if matches!(request.state, State::Waits(_)) {
                    assert!((due, ticket) <= (request.due, other), "nobody goes before who is due earlier");
                    assert!(came <= request.came + OVERTAKING, "nobody waits for who came much later");
                }
            }
        }
        let now = self.now;
        let request = self.request(ticket);
        (request.state, request.granted) = (State::InHand(grant.pod), now);
    }

    fn credit(&self, id: PodId) -> u64 {
        let told: BTreeMap<_, _> =
            self.dispatcher.pods().map(|(id, pod)| (id, (pod.is_joined, pod.told))).collect();
        let joined: Vec<_> = told
            .values()
            .filter(|(joined, _)| *joined)
            .filter_map(|(_, t)| Some(t.as_ref()?.credit))
            .collect();
        let mean = if joined.is_empty() { 1 } else { joined.iter().sum::<u64>() / joined.len() as u64 };
        told[&id].1.map_or(mean, |told| told.credit)
    }

    fn refused(&mut self, ticket: Ticket, refusal: Refusal) {
        let (now, waiting, bytes) = (self.now, self.untold.len(), self.waiting_bytes());
        let request = self.request(ticket);
        match refusal {
            Refusal::Full { .. } => {
                assert!(waiting >= ROOM * 3 / 4 || bytes + request.bytes > 30_000, "there was room");
            }
            Refusal::TooLate { wait } => {
                assert!(now == request.came, "at once or not at all");
                assert!(wait < QUEUE_TIMEOUT * 100, "a wait that may come true");
            }
            Refusal::Expired { waited } => assert_eq!(waited, now - request.came),
            Refusal::DiedTwice => assert_eq!(request.deaths, 2),
            Refusal::NoRetriesLeft => assert!(request.errors > 0),
        }
        assert!(request.deaths < 2 || refusal == Refusal::DiedTwice);
        request.state = State::Ended;
    }

    fn check(&mut self) {
        let figures = self.dispatcher.figures(self.now);
        let living: Vec<_> = self.living().map(|(_, request)| request.clone()).collect();
        assert_eq!(self.dispatcher.len(), living.len(), "what ended is forgotten, and nothing else");
        assert!(living.iter().all(|r| r.deaths < 2 && r.errors < ATTEMPTS));
        for (lane, figures) in [(Lane::Interactive, figures.interactive), (Lane::Bulk, figures.bulk)] {
            self.check_lane(lane, &figures, &living);
        }
        for (id, pod) in self.dispatcher.pods() {
            let there = living.iter().filter(|r| r.is_at(id));
            assert_eq!(pod.requests(), there.count(), "each pod has what it was given");
            assert!(pod.is_joined || pod.requests() > 0, "who left with nothing in hand is forgotten");
        }
        let in_line = living.iter().filter(|r| matches!(r.state, State::Waits(_))).count();
        assert_eq!(in_line, self.untold.len());
        if in_line > 0 {
            let next = self.dispatcher.next_tick(self.now).expect("who waits expires");
            assert!(next > self.now, "nothing is left to do now");
        }
    }

    fn check_lane(&self, lane: Lane, figures: &LaneFigures, living: &[Request]) {
        for (level, is_in_hand) in [(figures.waiting, false), (figures.in_hand, true)] {
            let here =
                living.iter().filter(|r| r.lane == lane && matches!(r.state, State::InHand(_)) == is_in_hand);
            let (count, work) = here.fold((0, 0), |(count, work), r| (count + 1, work + r.work));
            assert_eq!((level.requests, level.work), (count, work));
            let (requests, work) = self.integrals.get(&(lane, is_in_hand)).copied().unwrap_or_default();
            assert_eq!(level.request_seconds(), requests as f64 / 1e9, "the integral is exact");
            assert_eq!(level.work_seconds(), work as f64 / 1e9, "the integral is exact");
        }
        let ended = figures.answered.requests + figures.refused.requests + figures.left.requests;
        assert_eq!(figures.came.requests, figures.waiting.requests + figures.in_hand.requests + ended);
    }

    pub fn living(&self) -> impl Iterator<Item = (Ticket, &Request)> {
        self.requests.iter().filter(|(_, r)| r.state != State::Ended).map(|(ticket, r)| (*ticket, r))
    }

    pub fn in_hand(&self, which: usize) -> Option<Ticket> {
        let here: Vec<_> = self
            .living()
            .filter(|(_, r)| matches!(r.state, State::InHand(_)))
            .map(|(ticket, _)| ticket)
            .collect();
        (!here.is_empty()).then(|| here[which % here.len()])
    }

    fn in_second_hand(&self, which: usize) -> Option<Ticket> {
        let here: Vec<_> =
            self.living().filter(|(_, r)| r.hedge.is_some()).map(|(ticket, _)| ticket).collect();
        (!here.is_empty()).then(|| here[which % here.len()])
    }

    fn waiting_bytes(&self) -> usize {
        self.untold.values().map(|ticket| self.requests[ticket].bytes).sum()
    }

    fn request(&mut self, ticket: Ticket) -> &mut Request {
        self.requests.get_mut(&ticket).expect("a ticket that was given")
    }

    /// From now on pods answer everything. Whatever was before, all that lives is answered or was refused.
    pub fn end(mut self) {
        self.step(Step::Pods(BTreeSet::from([7, 8])));
        for _ in 0..10 * ROOM * 20 {
            let load = PodLoad { credit: 300, work: 20, rate: 1000, sessions: 1 };
            if self.in_hand(0).is_some() {
                self.step(Step::Answer { which: 0, load: Some(load) });
            } else if let Some(next) = self.dispatcher.next_tick(self.now) {
                self.pass(next - self.now);
            }
            if self.dispatcher.is_empty() {
                break;
            }
        }
        assert!(self.untold.is_empty() && self.dispatcher.is_empty(), "nothing is lost");
        assert_eq!(self.dispatcher.waiting_bytes(), 0);
        assert_eq!(self.dispatcher.next_tick(self.now), None);
    }
}
