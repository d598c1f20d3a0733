//! Gateways that count and are heard now and then, against a model that sees everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kembed_queue::{
    History, Past,
    fleet::{FRESH, Fleet},
    histogram::Histogram,
    report::{ByLane, Counts, Level},
    tally::{End, Passage, Tally},
    wire::Lane,
};
use proptest::prelude::*;

const GATEWAYS: usize = 3;
const SERVICES: [&str; 2] = ["t/a", "t/b"];

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Arrive {
        gateway: usize,
        service: usize,
        lane: Lane,
        tokens: u64,
    },
    Start(usize),
    GiveBack(usize),
    End(usize, End),
    /// A request leaves its gateway for this one.
    Move(usize, usize),
    /// It speaks, if its stream is open.
    Speak(usize),
    Disconnect(usize),
    Connect(usize),
    /// It dies with all that it has in hand, and a new life begins.
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let lane = || prop_oneof![Just(Lane::Interactive), Just(Lane::Bulk)];
    let end = prop_oneof![
        (0u64..100).prop_map(|tokens| End::Answered { tokens }),
        Just(End::Failed),
        Just(End::Refused),
        Just(End::Cancelled),
    ];
    prop_oneof![
        6 => (1u64..900).prop_map(Event::Pass),
        6 => (0..GATEWAYS, 0..SERVICES.len(), lane(), 0u64..100)
            .prop_map(|(gateway, service, lane, tokens)| Event::Arrive { gateway, service, lane, tokens }),
        4 => any::<usize>().prop_map(Event::Start),
        1 => any::<usize>().prop_map(Event::GiveBack),
        4 => (any::<usize>(), end).prop_map(|(which, end)| Event::End(which, end)),
        2 => (any::<usize>(), 0..GATEWAYS).prop_map(|(which, to)| Event::Move(which, to)),
        9 => (0..GATEWAYS).prop_map(Event::Speak),
        1 => (0..GATEWAYS).prop_map(Event::Disconnect),
        2 => (0..GATEWAYS).prop_map(Event::Connect),
        1 => (0..GATEWAYS).prop_map(Event::Restart),
    ]
}

/// One life of a gateway, with what the model knows of it.
struct Life {
    tally: Tally,
    /// The version that was told last, while its stream is open.
    stream: Option<u64>,
    truth: BTreeMap<usize, Truth>,
}

#[derive(Clone, Copy, Default)]
struct Truth {
    now: Counts,
    level: Level,
    /// What was there when the leader began to listen to this life, of what had been counted before it led.
    first: Counts,
    heard: Counts,
    heard_level: Level,
    before_leader: bool,
}

struct Open {
    passage: Option<Passage>,
    gateway: usize,
    service: usize,
    lane: Lane,
    tokens: u64,
    came: Instant,
    in_hand: bool,
}

struct World {
    now: Instant,
    epochs: u32,
    lives: Vec<Life>,
    open: Vec<Open>,
    fleet: Option<Fleet>,
    /// When each gateway was last heard.
    heard: [Option<Instant>; GATEWAYS],
    /// What lives that are over had told.
    past: BTreeMap<usize, Counts>,
    stepped: BTreeMap<usize, Counts>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            epochs: 0,
            lives: Vec::new(),
            open: Vec::new(),
            fleet: None,
            heard: [None; GATEWAYS],
            past: BTreeMap::new(),
            stepped: BTreeMap::new(),
        };
        (0..GATEWAYS).for_each(|_| {
            let life = world.life();
            world.lives.push(life);
        });
        world
    }

    fn life(&mut self) -> Life {
        self.epochs += 1;
        let tally = Tally::new(self.epochs.to_string(), self.now);
        Life { tally, stream: None, truth: BTreeMap::new() }
    }

    fn lead(&mut self) {
        self.happen(Event::Pass(1));
        let mut fleet = Fleet::new(self.now);
        assert!(fleet.step(self.now).is_err(), "it does not know which gateways there are");
        fleet.follow(&(0..GATEWAYS).map(|gateway| gateway.to_string()).collect::<BTreeSet<_>>());
        self.fleet = Some(fleet);
        for life in &mut self.lives {
            life.truth.values_mut().for_each(|truth| truth.before_leader = true);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass(ms) => self.pass(ms),
            Event::Arrive { gateway, service, lane, tokens } => self.arrive(gateway, service, lane, tokens),
            Event::Start(which) => self.turn(which, true),
            Event::GiveBack(which) => self.turn(which, false),
            Event::End(which, end) => self.end(which, end),
            Event::Move(which, to) => self.shift(which, to),
            Event::Speak(gateway) => self.speak(gateway),
            Event::Disconnect(gateway) => self.lives[gateway].stream = None,
            Event::Connect(gateway) => {
                if self.fleet.is_some() {
                    self.lives[gateway].stream = Some(0);
                    self.speak(gateway);
                }
            }
            Event::Restart(gateway) => self.restart(gateway),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        for open in &self.open {
            let truth = self.lives[open.gateway].truth.entry(open.service).or_default();
            let time = if open.in_hand { &mut truth.now.in_hand_time } else { &mut truth.now.waiting_time };
            *time.of(open.lane) += ms * 1000;
        }
    }

    fn arrive(&mut self, gateway: usize, service: usize, lane: Lane, tokens: u64) {
        let life = &mut self.lives[gateway];
        let passage = life.tally.arrive(Past::default(), SERVICES[service], lane, tokens, self.now);
        let truth = life.truth.entry(service).or_default();
        truth.now.arrived += 1;
        truth.now.arrived_tokens += tokens;
        truth.now.arrived_squares += tokens * tokens;
        *truth.level.waiting.of(lane) += 1;
        *truth.level.waiting_tokens.of(lane) += tokens;
        let came = self.now;
        self.open.push(Open { passage: Some(passage), gateway, service, lane, tokens, came, in_hand: false });
    }

    /// The old one gives it back, and it comes to the new one as one that was counted.
    fn shift(&mut self, which: usize, to: usize) {
        if self.open.is_empty() {
            return;
        }
        let open = self.open.swap_remove(which % self.open.len());
        let Open { passage, gateway, service, lane, tokens, came, in_hand } = open;
        let old = &mut self.lives[gateway];
        old.tally.end(passage.expect("it is open"), End::Moved, self.now);
        let (from, _) = places(&mut old.truth.entry(service).or_default().level, in_hand);
        *from.0.of(lane) -= 1;
        *from.1.of(lane) -= tokens;
        let past = Past { waited: self.now - came, history: Some(History::default()) };
        let new = &mut self.lives[to];
        let passage = new.tally.arrive(past, SERVICES[service], lane, tokens, self.now);
        let level = &mut new.truth.entry(service).or_default().level;
        *level.waiting.of(lane) += 1;
        *level.waiting_tokens.of(lane) += tokens;
        self.open.push(Open {
            passage: Some(passage),
            gateway: to,
            service,
            lane,
            tokens,
            came,
            in_hand: false,
        });
    }

    fn turn(&mut self, which: usize, in_hand: bool) {
        if self.open.is_empty() {
            return;
        }
        let index = which % self.open.len();
        let open = &mut self.open[index];
        let life = &mut self.lives[open.gateway];
        let passage = open.passage.as_mut().expect("it is open");
        if in_hand {
            life.tally.start(passage, self.now);
        } else {
            life.tally.give_back(passage, self.now);
        }
        if open.in_hand != in_hand {
            let level = &mut life.truth.entry(open.service).or_default().level;
            let (from, to) = places(level, !in_hand);
            *from.0.of(open.lane) -= 1;
            *from.1.of(open.lane) -= open.tokens;
            *to.0.of(open.lane) += 1;
            *to.1.of(open.lane) += open.tokens;
            open.in_hand = in_hand;
        }
    }

    fn end(&mut self, which: usize, end: End) {
        if self.open.is_empty() {
            return;
        }
        let open = self.open.swap_remove(which % self.open.len());
        let life = &mut self.lives[open.gateway];
        life.tally.end(open.passage.expect("it is open"), end, self.now);
        let truth = life.truth.entry(open.service).or_default();
        let (from, _) = places(&mut truth.level, open.in_hand);
        *from.0.of(open.lane) -= 1;
        *from.1.of(open.lane) -= open.tokens;
        match end {
            End::Answered { tokens } => {
                truth.now.answered += 1;
                truth.now.answered_tokens += tokens;
            }
            End::Failed => truth.now.failed += 1,
            End::Refused => truth.now.refused += 1,
            End::Cancelled => truth.now.cancelled += 1,
            End::Moved => unreachable!("that is an event of its own"),
        }
    }

    fn speak(&mut self, gateway: usize) {
        let life = &mut self.lives[gateway];
        let (Some(fleet), Some(since)) = (&mut self.fleet, life.stream) else { return };
        let (report, version) = life.tally.report(since, self.now, |_| true);
        life.stream = Some(version);
        let line = report.to_line();
        let first = life.truth.values().all(|truth| truth.heard == Counts::default());
        if !fleet.receive(&gateway.to_string(), serde_json::from_str(&line).expect("a report"), self.now) {
            // Two words in the same microsecond: the second is of no use, and all of it comes with the next.
            life.stream = Some(since);
            return;
        }
        self.heard[gateway] = Some(self.now);
        for truth in life.truth.values_mut() {
            if truth.before_leader && (first || truth.first == Counts::default()) {
                truth.first = truth.now;
                truth.before_leader = false;
            }
            (truth.heard, truth.heard_level) = (truth.now, truth.level);
        }
    }

    fn restart(&mut self, gateway: usize) {
        let life = self.life();
        let old = std::mem::replace(&mut self.lives[gateway], life);
        for (service, truth) in old.truth {
            let past = self.past.entry(service).or_default();
            *past = past.plus(&truth.heard.since(&truth.first));
        }
        self.open.retain(|open| open.gateway != gateway);
    }

    /// Takes a step, and holds it against what was heard.
    fn step(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        let is_silent = |heard: &Option<Instant>| heard.is_none_or(|heard| self.now - heard >= FRESH);
        match fleet.step(self.now) {
            Ok(step) => {
                assert!(
                    !self.heard.iter().any(is_silent),
                    "a silent gateway was taken for one without requests"
                );
                assert!(step.from <= step.to && step.to <= self.now);
                for (name, counts) in step.services {
                    let service = SERVICES.iter().position(|known| *known == name).expect("a known service");
                    let sum = self.stepped.entry(service).or_default();
                    *sum = sum.plus(&counts);
                }
            }
            Err(unknown) => {
                assert_eq!(
                    unknown.silent.len(),
                    self.heard.iter().filter(|heard| is_silent(heard)).count(),
                    "exactly the silent ones are named"
                );
            }
        }
    }

    /// Whether what was told until now, and no more, has come out.
    fn settle(mut self) {
        self.happen(Event::Pass(1));
        (0..GATEWAYS).for_each(|gateway| self.happen(Event::Connect(gateway)));
        self.step();
        let fleet = self.fleet.as_ref().expect("somebody leads");
        for (service, name) in SERVICES.iter().enumerate() {
            let lives = self.lives.iter().filter_map(|life| life.truth.get(&service));
            let past = self.past.get(&service).copied().unwrap_or_default();
            let heard = lives.clone().fold(past, |sum, truth| sum.plus(&truth.heard.since(&truth.first)));
            let told = self.stepped.get(&service).copied().unwrap_or_default();
            assert_eq!(without_histograms(told), heard, "{name}");
            assert_eq!(told.latencies.interactive.total() + told.latencies.bulk.total(), told.answered);
            let level = lives.fold(Level::default(), |sum, truth| sum.plus(&truth.heard_level));
            assert_eq!(fleet.level(name), level);
        }
    }
}

/// Requests and tokens of one place.
type At<'a> = (&'a mut ByLane<u64>, &'a mut ByLane<u64>);

/// The two places of a level, in one order or the other.
fn places(level: &mut Level, in_hand_first: bool) -> (At<'_>, At<'_>) {
    let waiting = (&mut level.waiting, &mut level.waiting_tokens);
    let in_hand = (&mut level.in_hand, &mut level.in_hand_tokens);
    if in_hand_first { (in_hand, waiting) } else { (waiting, in_hand) }
}

fn without_histograms(counts: Counts) -> Counts {
    Counts { waits: Default::default(), latencies: Default::default(), ..counts }
}

proptest! {
    #[test]
    fn what_gateways_tell_adds_up_to_what_happened(
        before in proptest::collection::vec(event(), 0..20),
        after in proptest::collection::vec(event(), 0..150),
    ) {
        let mut world = World::new();
        before.into_iter().for_each(|event| world.happen(event));
        world.lead();
        for event in after {
            world.happen(event);
            world.step();
        }
        world.settle();
    }
}

/// Wherever they go, requests arrive once and end once, and their times are from their coming to their end.
#[test]
fn a_request_that_moves_is_counted_once_and_for_all_its_time() {
    let began = Instant::now();
    let ms = |ms| began + Duration::from_millis(ms);
    let mut gateways = ["a", "b", "c"].map(|epoch| Tally::new(epoch.to_owned(), began));
    let mut passage = gateways[0].arrive(Past::default(), "t/s", Lane::Interactive, 7, ms(0));
    for (from, to, at) in [(0, 1, 100), (1, 2, 300)] {
        gateways[from].end(passage, End::Moved, ms(at));
        let past = Past { waited: ms(at) - began, history: Some(History::default()) };
        passage = gateways[to].arrive(past, "t/s", Lane::Interactive, 7, ms(at));
    }
    gateways[2].start(&mut passage, ms(1000));
    gateways[2].end(passage, End::Answered { tokens: 7 }, ms(1500));
    let told = gateways.each_mut().map(|tally| tally.report(0, ms(2000), |_| true).0.services["t/s"].clone());
    let sum = told.iter().fold(Counts::default(), |sum, told| sum.plus(&told.counts));
    assert_eq!((sum.arrived, sum.arrived_tokens, sum.arrived_squares), (1, 7, 49));
    assert_eq!((sum.answered, sum.failed, sum.refused, sum.cancelled), (1, 0, 0, 0));
    assert_eq!((sum.waiting_time.interactive, sum.in_hand_time.interactive), (1_000_000, 500_000));
    let longest = |histogram: Histogram| (histogram.total(), histogram.quantile(1.));
    let within = |(count, longest): (u64, Option<Duration>), ms: u64| {
        // To the precision of the histogram.
        count == 1 && longest.is_some_and(|time| (ms..ms + ms / 5).contains(&(time.as_millis() as u64)))
    };
    assert!(within(longest(sum.waits.interactive), 1000), "{:?}", longest(sum.waits.interactive));
    assert!(within(longest(sum.latencies.interactive), 1500), "{:?}", longest(sum.latencies.interactive));
    assert!(told.iter().all(|told| told.level == Level::default()));
}
