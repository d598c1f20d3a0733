//! What always holds of a dispatcher, whatever happens to it, checked step by step against a naive model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kembed_queue::credit::PodLoad;
use kembed_queue::dispatcher::{HedgeEnd, Refusal, retry_after};
use kembed_queue::estimate::Estimate;
use kembed_queue::figures::LaneFigures;
use kembed_queue::line::OVERTAKING;
use kembed_queue::retry::ATTEMPTS;
use kembed_queue::wire::Lane;
use kembed_queue::{
    Ask, Config, Dispatcher, Failure, Grant, History, LineBounds, News, Past, PodId, Ticket, Told,
};
use proptest::prelude::*;

const ROOM: usize = 12;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
const CONFIG: Config =
    Config { bounds: LineBounds { requests: ROOM, bytes: 40_000 }, queue_timeout: QUEUE_TIMEOUT };

/// Hedges for 100 interactive requests.
const HEDGED: u32 = 20;

/// What is answered at once is never late.
const LATE: Duration = Duration::from_micros(1);

/// What may happen. A number chooses among the requests that it can happen to.
#[derive(Clone, Debug)]
enum Step {
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
    prop_oneof![load().prop_map(HedgeEnd::NoCredit), failed, Just(HedgeEnd::TimedOut)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
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
struct Request {
    lane: Lane,
    work: u64,
    bytes: usize,
    came: Instant,
    due: Instant,
    state: State,
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
enum State {
    /// Its waiter's number.
    Waits(u64),
    InHand(PodId),
    Ended,
}

/// A dispatcher, and what it should come to.
struct Model {
    dispatcher: Dispatcher<u64>,
    now: Instant,
    estimate: Estimate,
    requests: BTreeMap<Ticket, Request>,
    /// Waiters that were not told yet.
    untold: BTreeMap<u64, Ticket>,
    waiters: u64,
    /// Of so many interactive requests so many were hedged.
    hedged: (usize, usize),
    joined: BTreeSet<u64>,
    /// Nanoseconds of a request and of a token: waiting and in hand, by lane.
    integrals: BTreeMap<(Lane, bool), (u128, u128)>,
}

impl Model {
    fn new() -> Self {
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

    fn step(&mut self, step: Step) {
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

    fn arrive(&mut self, bytes: usize, lane: Lane, patience: Option<Duration>) -> Ticket {
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

    fn answer(&mut self, ticket: Ticket, load: Option<PodLoad>) {
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

    fn fail(&mut self, ticket: Ticket, failure: Failure) {
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

    fn pass(&mut self, time: Duration) {
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

    fn living(&self) -> impl Iterator<Item = (Ticket, &Request)> {
        self.requests.iter().filter(|(_, r)| r.state != State::Ended).map(|(ticket, r)| (*ticket, r))
    }

    fn in_hand(&self, which: usize) -> Option<Ticket> {
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
    fn end(mut self) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_request_ends_in_one_way(steps in steps()) {
        let mut model = Model::new();
        model.step(Step::Pods(BTreeSet::from([0, 1])));
        for step in steps {
            model.step(step);
        }
        model.end();
    }

    /// The same, where it is known what is late.
    #[test]
    fn whatever_happens_few_are_given_to_a_second_pod(steps in steps()) {
        let mut model = Model::new();
        model.dispatcher.set_hedging(Some(HEDGED));
        model.step(Step::Pods(BTreeSet::from([0, 1])));
        for _ in 0..200 {
            let ticket = model.arrive(100, Lane::Interactive, None);
            model.answer(ticket, Some(PodLoad { credit: 100, work: 20, rate: 0, sessions: 1 }));
        }
        for step in steps {
            model.step(step);
        }
        model.end();
    }

    /// One request kills each pod that runs it. `choices` says what happens next.
    #[test]
    fn a_poisonous_request_kills_two_pods_and_nobody_else_sees_it(
        pods in 1u64..5,
        poison in 0usize..40,
        choices in proptest::collection::vec((any::<usize>(), 0u64..80), 400),
    ) {
        let load = Some(PodLoad { credit: 200, work: 20, rate: 5000, sessions: 2 });
        let mut model = Model::new();
        let mut lives = pods;
        let mut deaths = 0;
        model.step(Step::Pods((0..pods).collect()));
        let mut tickets = Vec::new();
        let mut choices = choices.into_iter().cycle();
        for number in 0.. {
            let (choice, ms) = choices.next().expect("they go on for ever");
            if tickets.len() < 40 && model.untold.len() < ROOM / 2 {
                tickets.push(model.arrive(100, Lane::Interactive, None));
            }
            model.pass(Duration::from_millis(ms));
            let Some(ticket) = model.in_hand(choice) else {
                if tickets.len() == 40 && model.dispatcher.is_empty() {
                    break;
                }
                assert!(number < 5000, "nothing is stuck");
                continue;
            };
            if tickets.get(poison) != Some(&ticket) {
                model.answer(ticket, load);
                continue;
            }
            // The pod is gone with all that it had, and another life of it comes.
            let State::InHand(PodId(pod)) = model.requests[&ticket].state else { unreachable!("in hand") };
            deaths += 1;
            lives += 1;
            let there: Vec<_> =
                model.living().filter(|(_, r)| r.state == State::InHand(PodId(pod))).map(|(t, _)| t).collect();
            there.into_iter().for_each(|ticket| model.fail(ticket, Failure::Broke));
            let mut joined = model.joined.clone();
            joined.remove(&pod);
            joined.insert(lives);
            model.step(Step::Pods(joined));
        }
        let figures = model.dispatcher.figures(model.now).interactive;
        prop_assert_eq!((deaths, figures.refused.requests, figures.answered.requests), (2, 1, 39));
    }
}

/// Two gateways that each believe to own the service, and pods that refuse what is beyond their credit.
struct Overlap {
    owners: [Dispatcher<()>; 2],
    now: Instant,
    /// What each pod has in hand: whose, which, how much.
    pods: [Vec<(usize, Ticket, u64)>; 2],
    answered: usize,
}

impl Overlap {
    const CREDIT: u64 = 120;

    fn load() -> Option<PodLoad> {
        Some(PodLoad { credit: Self::CREDIT, work: 0, rate: 1000, sessions: 1 })
    }

    fn new() -> Self {
        let now = Instant::now();
        let mut owners = [(); 2].map(|()| Dispatcher::new(CONFIG, now));
        for owner in &mut owners {
            assert!(owner.set_pods([PodId(0), PodId(1)], now).is_empty());
        }
        Self { owners, now, pods: [Vec::new(), Vec::new()], answered: 0 }
    }

    fn hear(&mut self, owner: usize, mut news: News<()>) {
        while let Some(told) = news.pop() {
            let Grant { ticket, pod: PodId(pod), work, .. } = told.word.expect("there is room and time");
            let pod = &mut self.pods[pod as usize];
            if pod.iter().map(|(_, _, work)| work).sum::<u64>() < Self::CREDIT {
                pod.push((owner, ticket, work));
            } else {
                news.extend(self.owners[owner].no_credit(ticket, Self::load(), (), self.now));
            }
        }
    }

    fn answer(&mut self, pod: usize) {
        if self.pods[pod].is_empty() {
            return;
        }
        let (owner, ticket, _) = self.pods[pod].remove(0);
        self.answered += 1;
        let news = self.owners[owner].answered(ticket, Self::load(), self.now);
        self.hear(owner, news);
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        for owner in 0..2 {
            let news = self.owners[owner].tick(self.now);
            self.hear(owner, news);
        }
    }
}

proptest! {
    #[test]
    fn while_ownership_moves_nothing_is_lost_and_no_pod_has_too_much(
        steps in proptest::collection::vec((0usize..2, 50usize..600, 0usize..4, 0u64..30), 0..100),
    ) {
        let mut overlap = Overlap::new();
        let mut came = 0;
        for (which, bytes, event, ms) in steps {
            if event < 2 && overlap.owners[which].len() < ROOM {
                let ask = Ask { bytes, lane: Lane::Interactive, deadline: None };
                let (_, news) = overlap.owners[which].arrive(ask, (), overlap.now);
                overlap.hear(which, news);
                came += 1;
            } else if event == 2 {
                overlap.answer(which);
            } else {
                overlap.pass(ms);
            }
        }
        for _ in 0..2 * came {
            overlap.answer(0);
            overlap.answer(1);
            overlap.pass(20);
        }
        prop_assert_eq!(overlap.answered, came, "each is answered once");
        prop_assert!(overlap.owners.iter().all(Dispatcher::is_empty));
        prop_assert!(overlap.owners.iter().all(|owner| owner.pods().all(|(_, pod)| pod.requests() == 0)));
    }
}

const LOAD: PodLoad = PodLoad { credit: 100, work: 0, rate: 1000, sessions: 1 };

/// Grants until `until` to one pod that ends each of them at once in this way.
fn grants_until(until: Duration, end: impl Fn(&mut Dispatcher<()>, Ticket, Instant) -> News<()>) -> usize {
    let start = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, start);
    let mut news = dispatcher.set_pods([PodId(1)], start);
    let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
    news.extend(dispatcher.arrive(ask, (), start).1);
    let (mut now, mut grants) = (start, 0);
    while now - start < until {
        match news.pop() {
            Some(told) => {
                grants += 1;
                assert!(grants < 10_000, "it is asked all the time");
                let ticket = told.word.expect("it is not refused").ticket;
                news.extend(end(&mut dispatcher, ticket, now));
            }
            None => {
                now = dispatcher.next_tick(now).expect("it waits");
                news.extend(dispatcher.tick(now));
            }
        }
    }
    grants
}

#[test]
fn a_pod_without_credit_is_not_asked_all_the_time() {
    let grants =
        grants_until(Duration::from_secs(1), |d, ticket, now| d.no_credit(ticket, Some(LOAD), (), now));
    assert_eq!(grants, 50, "each 20 ms");
}

#[test]
fn the_only_pod_is_tried_on_while_it_cannot_be_reached_but_not_all_the_time() {
    let unreached = |d: &mut Dispatcher<()>, ticket, now| d.failed(ticket, Failure::Unreached, (), now);
    assert_eq!(grants_until(Duration::from_secs(30), unreached), 120, "each 250 ms");
}

/// A dispatcher with a pod that told its load, and has nothing in hand.
fn with_pod(load: PodLoad, now: Instant) -> Dispatcher<&'static str> {
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    assert!(dispatcher.set_pods([PodId(1)], now).is_empty());
    let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
    let (ticket, news) = dispatcher.arrive(ask, "first", now);
    assert_eq!(news.len(), 1);
    assert!(dispatcher.answered(ticket, Some(load), now).is_empty());
    dispatcher
}

fn ask(lane: Lane) -> Ask {
    Ask { bytes: 1000, lane, deadline: None }
}

#[test]
fn one_request_at_a_time_until_a_pod_tells_more() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    assert!(dispatcher.set_pods([PodId(1)], now).is_empty());
    let (first, news) = dispatcher.arrive(ask(Lane::Interactive), 1, now);
    assert_eq!(news.len(), 1);
    for waiter in 2..5 {
        assert!(dispatcher.arrive(ask(Lane::Interactive), waiter, now).1.is_empty());
    }
    let news = dispatcher.answered(first, Some(PodLoad { credit: 10_000, ..LOAD }), now);
    assert_eq!(news.iter().map(|told| told.waiter).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn bulk_in_hand_does_not_keep_interactive_out() {
    let now = Instant::now();
    let mut dispatcher = with_pod(LOAD, now);
    assert_eq!(dispatcher.arrive(ask(Lane::Bulk), "bulk", now).1.len(), 1);
    assert!(dispatcher.arrive(ask(Lane::Bulk), "more bulk", now).1.is_empty(), "the lane's credit is used");
    assert_eq!(dispatcher.arrive(ask(Lane::Interactive), "interactive", now).1.len(), 1);
}

#[test]
fn what_would_be_too_late_is_refused_at_once_and_told_how_long_it_takes() {
    let now = Instant::now();
    let mut dispatcher = with_pod(LOAD, now);
    for _ in 0..6 {
        let _ = dispatcher.arrive(ask(Lane::Interactive), "waits", now);
    }
    let waits = dispatcher.figures(now).interactive.waiting.work;
    let soon = Ask { deadline: Some(now + OVERTAKING), ..ask(Lane::Interactive) };
    assert!(dispatcher.arrive(soon, "in time", now).1.is_empty());
    let soon = Ask { deadline: Some(now + Duration::from_millis(100)), ..ask(Lane::Interactive) };
    let (_, news) = dispatcher.arrive(soon, "late", now);
    assert!(matches!(news[0].word, Err(Refusal::TooLate { .. })), "{news:?}");
    let wait = dispatcher.predicted_wait(Lane::Interactive, now).expect("the speed is known");
    assert!((wait.as_secs_f64() - (waits as f64 * 6. / 5.) / 1000.).abs() < 0.01, "{wait:?}");
}

#[test]
fn bulk_leaves_room_for_who_waits_for_an_answer() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    for _ in 0..2 * ROOM {
        let _ = dispatcher.arrive(Ask { bytes: 100, ..ask(Lane::Bulk) }, (), now);
    }
    let figures = dispatcher.figures(now);
    assert_eq!((figures.bulk.waiting.requests, figures.bulk.refused.requests), (9, 15));
    for _ in 0..2 * ROOM {
        let _ = dispatcher.arrive(Ask { bytes: 100, ..ask(Lane::Interactive) }, (), now);
    }
    assert_eq!(dispatcher.figures(now).interactive.waiting.requests, 3);
}

#[test]
fn time_at_a_pod_that_died_is_not_time_that_it_waited() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    assert!(dispatcher.set_pods([PodId(1)], now).is_empty());
    let (ticket, news) = dispatcher.arrive(ask(Lane::Interactive), 1, now);
    assert_eq!(news.len(), 1);
    let died = now + 2 * QUEUE_TIMEOUT;
    assert!(dispatcher.set_pods([], died).is_empty());
    assert!(dispatcher.failed(ticket, Failure::Broke, 2, died).is_empty(), "it waits");
    assert_eq!(dispatcher.next_tick(died), Some(died + QUEUE_TIMEOUT));
    let news = dispatcher.set_pods([PodId(2)], died);
    assert!(matches!(news[..], [ref told] if told.waiter == 2 && told.word.is_ok()));
}

#[test]
fn who_is_refused_together_does_not_come_back_together() {
    let seconds = |wait, seed| retry_after(Duration::from_millis(wait), seed);
    let told: BTreeSet<_> = (0..100).map(|seed| seconds(20_000, seed * 17)).collect();
    assert!(told.len() > 3 && told.iter().all(|told| (18..=22).contains(told)), "{told:?}");
    assert_eq!((seconds(0, 5), seconds(10_000_000, 5)), (1, 60));
}

#[test]
fn what_comes_from_elsewhere_stands_where_it_would_have() {
    let start = Instant::now();
    let now = start + Duration::from_secs(10);
    let mut dispatcher = Dispatcher::new(CONFIG, start);
    let waited = |seconds| Duration::from_secs(seconds);
    for (waiter, seconds) in [("here", 0), ("second", 2), ("first", 3), ("third", 1)] {
        let (_, news) =
            dispatcher.arrive_from_elsewhere(ask(Lane::Interactive), past(waited(seconds)), waiter, now);
        assert!(news.is_empty(), "there is no pod");
    }
    assert_eq!(dispatcher.next_tick(now), Some(now - waited(3) + QUEUE_TIMEOUT), "what it waited counts");
    let mut came = Vec::new();
    let mut news = dispatcher.set_pods([PodId(1)], now);
    while let Some(told) = news.pop() {
        came.push(told.waiter);
        let grant = told.word.expect("a pod");
        news.extend(dispatcher.answered(grant.ticket, None, now));
    }
    assert_eq!(came, ["first", "second", "third", "here"]);
}

#[test]
fn who_was_let_in_elsewhere_is_let_in() {
    let now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    for _ in 0..ROOM {
        assert!(dispatcher.arrive(Ask { bytes: 100, ..ask(Lane::Interactive) }, (), now).1.is_empty());
    }
    assert_eq!(dispatcher.arrive(ask(Lane::Interactive), (), now).1.len(), 1, "it is full");
    let micro = past(Duration::from_micros(1));
    let moved = dispatcher.arrive_from_elsewhere(ask(Lane::Interactive), micro, (), now);
    assert!(moved.1.is_empty());
}

/// Of a request that has waited so long elsewhere, where nothing happened to it.
fn past(waited: Duration) -> Past {
    Past { waited, ..Past::default() }
}

/// One request kills each pod that runs it, while the service's owner changes again and again: `moves` says before which
/// attempts. It is given back by one and comes to the other with what it went through.
fn deaths_of_a_poisonous_request(moves: &[bool]) -> (usize, Refusal) {
    let (mut now, mut lives, mut deaths) = (Instant::now(), 0, 0);
    let mut owner = Dispatcher::new(CONFIG, now);
    let (mut ticket, mut news) = owner.arrive(ask(Lane::Interactive), (), now);
    let came = now;
    for moves in moves.iter().chain([false, false, false].iter()) {
        now += Duration::from_millis(5);
        if *moves {
            news.extend(owner.set_pods([], now));
            let given_back = owner.give_up_waiting(now);
            let [((), history)] = given_back[..] else { panic!("it waits") };
            owner = Dispatcher::new(CONFIG, now);
            let written = History::parse(&history.to_string());
            let past = Past { waited: now - came, history: written };
            (ticket, news) = owner.arrive_from_elsewhere(ask(Lane::Interactive), past, (), now);
        }
        lives += 1;
        news.extend(owner.set_pods([PodId(lives)], now));
        let Some(Told { word: Ok(_), .. }) = news.pop() else { panic!("a pod is there") };
        deaths += 1;
        news = owner.failed(ticket, Failure::Broke, (), now);
        // Until the pod is known to be gone.
        news.extend(owner.set_pods([], now));
        if let Some(Told { word: Err(refusal), .. }) = news.pop() {
            return (deaths, refusal);
        }
    }
    panic!("it went on for ever");
}

proptest! {
    #[test]
    fn a_poisonous_request_kills_two_pods_however_often_its_owner_changes(
        moves in proptest::collection::vec(any::<bool>(), 0..6),
    ) {
        prop_assert_eq!(deaths_of_a_poisonous_request(&moves), (2, Refusal::DiedTwice));
    }
}

/// Three pods, of which it is known how long they take: 10 ms. The first request that comes next is at one of them.
fn late() -> (Dispatcher<u64>, Instant, Grant) {
    let mut now = Instant::now();
    let mut dispatcher = Dispatcher::new(CONFIG, now);
    dispatcher.set_hedging(Some(5));
    assert!(dispatcher.set_pods([0, 1, 2].map(PodId), now).is_empty());
    let load = Some(PodLoad { credit: 200, work: 20, rate: 1000, sessions: 1 });
    let arrive = |dispatcher: &mut Dispatcher<u64>, now| {
        let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
        let (_, mut news) = dispatcher.arrive(ask, 0, now);
        news.pop().expect("there is credit").word.expect("there is time")
    };
    for _ in 0..200 {
        let Grant { ticket, .. } = arrive(&mut dispatcher, now);
        assert_eq!(dispatcher.hedge_after(ticket), None, "not enough is known");
        now += Duration::from_millis(10);
        assert!(dispatcher.hedge(ticket, now).is_none());
        assert!(dispatcher.answered(ticket, load, now).is_empty());
    }
    let grant = arrive(&mut dispatcher, now);
    (dispatcher, now, grant)
}

/// What each pod has in hand.
fn in_hand(dispatcher: &Dispatcher<u64>) -> Vec<usize> {
    dispatcher.pods().map(|(_, pod)| pod.requests()).collect()
}

#[test]
fn what_is_late_goes_to_a_second_pod_and_the_first_answer_wins() {
    for second_wins in [true, false] {
        let (mut dispatcher, began, Grant { ticket, pod, .. }) = late();
        let after = dispatcher.hedge_after(ticket).expect("it is known what is late");
        assert!((10..12).contains(&after.as_millis()), "{after:?}");
        assert!(dispatcher.hedge(ticket, began + after / 2).is_none(), "it is not late");
        let second = dispatcher.hedge(ticket, began + after).expect("two pods have nothing to do");
        assert!(second.pod != pod && in_hand(&dispatcher).iter().sum::<usize>() == 2);
        assert_eq!(dispatcher.hedge_after(ticket), None);
        assert!(dispatcher.hedge(ticket, began + after * 9).is_none(), "once is enough");
        let now = began + after * 2;
        let news = if second_wins {
            dispatcher.hedge_answered(ticket, None, None, now)
        } else {
            dispatcher.answered(ticket, None, now)
        };
        assert!(news.is_empty() && dispatcher.is_empty());
        assert_eq!(in_hand(&dispatcher), [0, 0, 0], "nobody works for it any more");
        let figures = dispatcher.figures(now).interactive;
        assert_eq!((figures.came.requests, figures.answered.requests), (201, 201), "counted once");
        // Whoever lost says nothing more; if it did, it would be ignored.
        assert!(dispatcher.hedge_answered(ticket, None, None, now).is_empty());
        assert!(dispatcher.hedge_failed(ticket, HedgeEnd::TimedOut, now).is_empty());
    }
}

#[test]
fn a_second_pod_that_fails_leaves_the_request_with_the_first() {
    let no_credit = HedgeEnd::NoCredit(Some(PodLoad { credit: 9, ..PodLoad::default() }));
    for end in
        [no_credit, HedgeEnd::Failed(Failure::Erred), HedgeEnd::Failed(Failure::Broke), HedgeEnd::TimedOut]
    {
        let (mut dispatcher, began, Grant { ticket, .. }) = late();
        let now = began + Duration::from_millis(20);
        assert!(dispatcher.hedge(ticket, now).is_some());
        assert!(dispatcher.hedge_failed(ticket, end, now).is_empty());
        assert_eq!(in_hand(&dispatcher).iter().sum::<usize>(), 1);
        assert!(dispatcher.hedge(ticket, now).is_none() || end != HedgeEnd::Failed(Failure::Broke));
        assert!(dispatcher.answered(ticket, None, now).is_empty());
        assert!(dispatcher.is_empty());
    }
}

/// However it was hedged, a request kills two pods at most.
#[test]
fn who_died_at_both_pods_is_refused() {
    let (mut dispatcher, began, Grant { ticket, .. }) = late();
    let now = began + Duration::from_millis(20);
    assert!(dispatcher.hedge(ticket, now).is_some());
    assert!(dispatcher.hedge_failed(ticket, HedgeEnd::Failed(Failure::Broke), now).is_empty());
    let told = dispatcher.failed(ticket, Failure::Broke, 7, now).pop().expect("it is told");
    assert_eq!((told.waiter, told.word.expect_err("twice is enough")), (7, Refusal::DiedTwice));
}

/// And if the first pod did not die of it, it runs alone next.
#[test]
fn who_died_at_the_second_pod_alone_is_suspect() {
    let (mut dispatcher, began, Grant { ticket, pod, .. }) = late();
    let now = began + Duration::from_millis(20);
    let second = dispatcher.hedge(ticket, now).expect("two pods have nothing to do").pod;
    assert!(dispatcher.hedge_failed(ticket, HedgeEnd::Failed(Failure::Broke), now).is_empty());
    let told = dispatcher.failed(ticket, Failure::Erred, 7, now).pop().expect("a pod is free");
    let again = told.word.expect("it is tried again").pod;
    assert!(again != second, "that one is ejected");
    let ask = Ask { bytes: 100, lane: Lane::Interactive, deadline: None };
    let (_, mut news) = dispatcher.arrive(ask, 8, now);
    let other = news.pop().expect("a pod is free").word.expect("there is time").pod;
    assert!(other != again, "a suspect has its pod for itself, here pod {pod:?} and {again:?}");
}

#[test]
fn bulk_and_what_has_no_other_pod_is_not_hedged() {
    let (mut dispatcher, began, Grant { ticket, pod, .. }) = late();
    let now = began + Duration::from_secs(1);
    assert!(dispatcher.set_pods([pod], began).is_empty());
    assert!(dispatcher.hedge(ticket, now).is_none(), "there is no other pod");
    assert!(dispatcher.set_pods([0, 1, 2].map(PodId), began).is_empty());
    let bulk = Ask { bytes: 100, lane: Lane::Bulk, deadline: None };
    let (bulk, news) = dispatcher.arrive(bulk, 0, began);
    assert_eq!(news.len(), 1);
    assert_eq!(dispatcher.hedge_after(bulk), None);
    assert!(dispatcher.hedge(bulk, now).is_none());
    dispatcher.set_hedging(None);
    assert!(dispatcher.hedge(ticket, now).is_none(), "it was switched off");
}
