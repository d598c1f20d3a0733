//! The world that a policy decides for: requests come, wait in one queue, and pods that come and go answer them in batches.

use std::time::Duration;

use crate::{
    observation::{Load, Observation, Pods},
    policy::Settings,
    simulate::{
        contender::{Contender, Sight},
        fleet::{Batch, Fleet, Nodes},
        meter::Meter,
        pod::PodModel,
        score::Score,
        told::{Gateways, Level, Stretch, Told},
        trace::{Arrival, Trace},
    },
};

/// Seconds after the end of the trace in which what still waits must be answered, or never is.
const PATIENCE: f64 = 3600.;

/// The share of a pod's time that the pods there are at the beginning are meant to be busy.
const FIRST_LOAD: f64 = 0.8;

/// Seconds of traffic that decide how many pods there are at the beginning.
const FIRST_SECONDS: f64 = 60.;

/// What does not change while a trace is played.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// How fast a pod is.
    pub pod: PodModel,
    /// Seconds from when a pod is asked for, and has a node, until it answers.
    pub start: f64,
    /// Where pods find place. `None`: everywhere, at once.
    pub nodes: Option<Nodes>,
    /// The latency, in seconds, that a request must not exceed.
    pub target: f64,
    /// The fewest pods.
    pub min: u32,
    /// The most pods.
    pub max: u32,
    /// Pods that answer from the beginning. `None`: as many as the first minute needs, and one at least, for whoever
    /// replays an hour of traffic begins in the middle of it.
    pub first: Option<u32>,
    /// Who tells what happens. `None`: it is seen as it happens, by looks at whole periods since the beginning.
    pub gateways: Option<Gateways>,
}

/// Is told what happens as it happens. Times are seconds since the trace began.
pub trait Watch {
    /// A request came.
    fn arrive(&mut self, _arrival: &Arrival) {}
    /// A request was answered, so many seconds after it came.
    fn answer(&mut self, _at: f64, _seconds: f64) {}
    /// From now on there are so many pods, of which so many answer.
    fn count(&mut self, _at: f64, _pods: u32, _ready: u32) {}
}

/// Nobody watches.
impl Watch for () {}

impl World {
    /// The world of a service with these settings.
    pub fn of(settings: &Settings, start: Duration) -> Self {
        Self {
            pod: PodModel::default(),
            start: start.as_secs_f64(),
            nodes: None,
            target: settings.objective.map_or(f64::INFINITY, |objective| objective.target.as_secs_f64()),
            min: settings.min,
            max: settings.max,
            first: None,
            gateways: Some(Gateways::default()),
        }
    }

    /// Plays the trace to whoever decides.
    pub fn play<W: Watch + ?Sized>(
        &self,
        trace: &Trace,
        contender: &mut dyn Contender,
        watch: &mut W,
    ) -> Score {
        Play::new(self, trace, watch, contender.learns()).run(contender)
    }

    fn first(&self, trace: &Trace) -> u32 {
        let arrivals = trace.arrivals();
        let early = &arrivals[..arrivals.partition_point(|arrival| arrival.at < FIRST_SECONDS)];
        let tokens: f64 = early.iter().map(|arrival| f64::from(arrival.tokens)).sum();
        let busy = tokens / FIRST_SECONDS / self.pod.rate();
        self.first.unwrap_or(((busy / FIRST_LOAD).ceil() as u32).max(1)).clamp(self.min, self.max)
    }
}

/// A trace while it is played.
struct Play<'a, W: ?Sized> {
    world: &'a World,
    arrivals: &'a [Arrival],
    seconds: f64,
    watch: &'a mut W,
    /// Somebody looks at what answers tell.
    learns: bool,
    now: f64,
    /// Those from here on wait.
    head: usize,
    /// Those from here on have not come yet.
    tail: usize,
    waiting_tokens: u64,
    in_hand: usize,
    in_hand_tokens: u64,
    computing: u32,
    fleet: Fleet,
    meter: Meter,
    wanted: u32,
    /// What happened since it was told.
    since: Stretch,
    told: Told,
    /// The look before, and pods that computed since then, times seconds.
    looked: (f64, f64),
    score: Score,
}

impl<'a, W: Watch + ?Sized> Play<'a, W> {
    fn new(world: &'a World, trace: &'a Trace, watch: &'a mut W, learns: bool) -> Self {
        let wanted = world.first(trace);
        let mut meter = Meter::default();
        // A service's first pod was there before the trace began, or nobody would know what a pod can do.
        meter.started(&world.pod, world.start + world.nodes.map_or(0., |nodes| nodes.lead));
        Self {
            world,
            arrivals: trace.arrivals(),
            seconds: trace.seconds(),
            watch,
            learns,
            now: 0.,
            head: 0,
            tail: 0,
            waiting_tokens: 0,
            in_hand: 0,
            in_hand_tokens: 0,
            computing: 0,
            fleet: Fleet::new(world.start, world.nodes, wanted),
            meter,
            wanted,
            since: Stretch::default(),
            told: Told::by(world.gateways),
            looked: (0., 0.),
            score: Score::default(),
        }
    }

    fn run(mut self, contender: &mut dyn Contender) -> Score {
        let period = contender.period();
        self.tell();
        self.look(contender, false);
        let first = if self.told.is_at_once() { 1. } else { self.told.look };
        let mut looks = 0_u64;
        loop {
            let next_look = (looks as f64 + first) * period;
            let next_arrival = self.arrivals.get(self.tail).map_or(f64::INFINITY, |arrival| arrival.at);
            let next_word = self.told.next();
            let next = next_arrival.min(self.fleet.next).min(next_look).min(next_word);
            if self.is_over(next) {
                break;
            }
            self.pass(next);
            if next == self.fleet.next {
                self.happen();
            } else if next == next_arrival {
                self.arrive(contender);
            } else if next == next_word {
                self.report();
            } else {
                self.look(contender, false);
                looks += 1;
            }
        }
        // Pods are paid for to the end of the trace, even if all was answered before.
        self.pass(self.now.max(self.seconds));
        self.score.requests = self.arrivals.len() as u64;
        self.score.give_up((self.tail - self.head + self.in_hand) as u64);
        self.score
    }

    fn is_over(&self, next: f64) -> bool {
        let is_done = self.head == self.arrivals.len() && self.in_hand == 0 && next >= self.seconds;
        is_done || next > self.seconds + PATIENCE
    }

    /// Lets time pass in which nothing happens.
    fn pass(&mut self, to: f64) {
        let passed = to - self.now;
        self.since.seconds += passed;
        self.since.waiting += passed * (self.tail - self.head) as f64;
        self.since.in_hand += passed * self.in_hand as f64;
        self.looked.1 += passed * f64::from(self.computing);
        self.score.replica_seconds += passed * self.fleet.pods.len() as f64;
        self.now = to;
    }

    fn arrive(&mut self, contender: &mut dyn Contender) {
        let arrival = &self.arrivals[self.tail];
        let (load, tokens) = (&mut self.since.load, f64::from(arrival.tokens));
        load.arrived += 1.;
        load.arrived_tokens += tokens;
        load.arrived_squares += tokens * tokens;
        self.watch.arrive(arrival);
        self.tail += 1;
        self.waiting_tokens += u64::from(arrival.tokens);
        if self.fleet.ready == 0 {
            self.score.cold += 1;
            if self.wanted == 0 && self.tail - self.head == 1 {
                self.look(contender, true);
            }
        }
        self.dispatch();
    }

    fn happen(&mut self) {
        let before = self.fleet.pods.len();
        match self.fleet.happen(self.now, &mut self.meter, &self.world.pod) {
            Some(batch) => self.answer(batch),
            None => self.tell(),
        }
        if self.fleet.pods.len() != before {
            self.tell();
        }
        self.dispatch();
    }

    fn answer(&mut self, batch: Batch) {
        for arrival in &self.arrivals[batch.from..batch.to] {
            let took = self.now - arrival.at;
            self.score.answer(took, self.world.target);
            self.watch.answer(self.now, took);
            if self.learns {
                self.since.load.latencies.observe(Duration::from_secs_f64(took));
            }
        }
        self.in_hand -= batch.to - batch.from;
        self.in_hand_tokens -= batch.tokens;
        self.computing -= 1;
        self.since.load.answered_tokens += batch.tokens as f64;
        if self.learns {
            self.meter.observe(batch.tokens, self.now - batch.began);
        }
    }

    /// Gives what waits to pods that have nothing to do.
    fn dispatch(&mut self) {
        while self.head < self.tail {
            let Some(pod) = self.fleet.idle() else { return };
            let (from, mut tokens) = (self.head, 0);
            while let Some(arrival) = self.arrivals[..self.tail].get(self.head) {
                let with = tokens + u64::from(arrival.tokens);
                if self.head > from && with > u64::from(self.world.pod.batch_tokens) {
                    break;
                }
                tokens = with;
                self.head += 1;
            }
            let ends = self.now + self.world.pod.seconds(tokens);
            self.waiting_tokens -= tokens;
            self.in_hand += self.head - from;
            self.in_hand_tokens += tokens;
            self.computing += 1;
            self.fleet.give(pod, Batch { from, to: self.head, tokens, began: self.now }, ends);
        }
    }

    /// The gateway that has the requests tells of them.
    fn report(&mut self) {
        let waiting = self.tail - self.head;
        let level = Level {
            requests: (waiting + self.in_hand) as f64,
            waiting_tokens: self.waiting_tokens as f64,
            in_hand_tokens: self.in_hand_tokens as f64,
            wanted: waiting > 0 && self.fleet.ready == 0,
        };
        self.told.hear(self.now, std::mem::take(&mut self.since), level);
    }

    fn look(&mut self, contender: &mut dyn Contender, is_wake: bool) {
        if is_wake || self.told.is_at_once() {
            self.report();
        }
        let (Stretch { seconds, load, waiting, in_hand }, level) = self.told.look(self.now);
        let mean = |integral: f64, over: f64| if over > 0. { integral / over } else { 0. };
        let load = Load {
            over: Duration::from_secs_f64(seconds),
            waiting: mean(waiting, seconds),
            in_hand: mean(in_hand, seconds),
            requests: level.requests,
            waiting_tokens: level.waiting_tokens,
            in_hand_tokens: level.in_hand_tokens,
            wanted: level.wanted,
            ..load
        };
        let seen = Observation {
            now: Duration::from_secs_f64(self.now),
            load: Some(load),
            pods: self.pods(),
            speed: self.meter.speed(),
        };
        let (before, busy) = std::mem::replace(&mut self.looked, (self.now, 0.));
        let busy = mean(busy, self.now - before);
        let (waiting, in_hand) = (self.tail - self.head, self.in_hand);
        let wanted = contender.decide(&Sight { seen: &seen, busy, waiting, in_hand, is_wake });
        self.scale(wanted.clamp(self.world.min, self.world.max));
    }

    fn pods(&self) -> Pods {
        Pods {
            wanted: self.wanted,
            ready: self.fleet.ready,
            starting: self.fleet.starting().map(|asked| Duration::from_secs_f64(self.now - asked)).collect(),
            ..Pods::default()
        }
    }

    fn scale(&mut self, wanted: u32) {
        if wanted == self.wanted {
            return;
        }
        self.score.scale_events += 1;
        self.wanted = wanted;
        self.fleet.resize(wanted, self.now);
        self.tell();
    }

    fn tell(&mut self) {
        self.watch.count(self.now, self.fleet.pods.len() as u32, self.fleet.ready);
    }
}
