//! A service whose work is a fluid: enough of a world to see what the core makes of it.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::Duration;

use kembed_queue::histogram::Histogram;
use kembed_scaling::{Decision, Load, Objective, Observation, Pods, Scaler, Settings, Speed};

/// Tokens a second that a pod of the world computes.
pub const RATE: f64 = 1000.;

/// Tokens of each request.
pub const SIZE: f64 = 10.;

/// From 0 to 10 pods, 200 ms in 95 % of cases.
pub const SETTINGS: Settings = Settings {
    min: 0,
    max: 10,
    queue_depth: 16,
    objective: Some(Objective { share: 0.95, target: Duration::from_millis(200) }),
    zero_after: Duration::from_secs(300),
    tunes: false,
};

/// The service.
pub struct World {
    pub scaler: Scaler,
    pub now: u64,
    pub start: f64,
    pub ready: u32,
    /// Seconds since each was asked for.
    pub starting: Vec<f64>,
    pub queued: f64,
    pub crash_looping: bool,
    pub no_capacity: bool,
    pub measured: bool,
    /// Nothing is told of the load.
    pub silent: bool,
    /// Seconds that each request stays with its pod, if pods are slower than they say, and the share of answers over the target.
    pub slow: Option<(f64, f64)>,
    seed: u64,
}

impl World {
    /// With so many ready pods that take `start` seconds to start.
    pub fn new(settings: Settings, ready: u32, start: f64) -> Self {
        Self {
            scaler: Scaler::new(settings),
            now: 0,
            start,
            ready,
            starting: Vec::new(),
            queued: 0.,
            crash_looping: false,
            no_capacity: false,
            measured: true,
            silent: false,
            slow: None,
            seed: 1,
        }
    }

    pub fn wanted(&self) -> u32 {
        self.ready + self.starting.len() as u32
    }

    /// One second in which so many requests came, and what is decided then.
    pub fn pass(&mut self, requests: f64) -> Decision {
        let seen = self.look(requests, 1.);
        let decision = self.scaler.decide(&seen);
        self.ask(decision.replicas);
        decision
    }

    /// So many seconds with so many requests in each, and the last decision.
    pub fn run(&mut self, seconds: usize, requests: f64) -> Decision {
        (0..seconds).map(|_| self.pass(requests)).last().expect("a second at least")
    }

    /// So many requests, more or less, as they come without memory.
    pub fn chance(&mut self, requests: f64) -> f64 {
        let mut uniform = || {
            self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        let normal: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.;
        (requests + normal * requests.sqrt()).round().max(0.)
    }

    /// What is seen after `over` seconds with so many requests in all.
    pub fn look(&mut self, requests: f64, over: f64) -> Observation {
        self.now += over as u64;
        self.starting.iter_mut().for_each(|age| *age += over);
        let start = self.start;
        let before = self.starting.len();
        self.starting.retain(|age| *age < start);
        self.ready += (before - self.starting.len()) as u32;
        let work = requests * SIZE;
        let served = (self.queued + work).min(f64::from(self.ready) * RATE * over);
        self.queued += work - served;
        let load = Load {
            over: Duration::from_secs_f64(over),
            arrived: requests,
            arrived_tokens: work,
            arrived_squares: work * SIZE,
            answered_tokens: served,
            waiting: self.queued / SIZE,
            in_hand: served / RATE / over,
            requests: self.queued / SIZE + served / RATE / over,
            waiting_tokens: self.queued,
            wanted: self.ready == 0 && self.queued > 0.,
            ..Load::default()
        };
        let load = self.slow.map_or(load.clone(), |slow| slowed(load, slow, requests, over));
        let pods = Pods {
            wanted: self.wanted(),
            ready: self.ready,
            starting: self.starting.iter().map(|age| Duration::from_secs_f64(*age)).collect(),
            crash_looping: self.crash_looping,
            no_capacity: self.no_capacity,
        };
        let speed = Speed {
            rate: self.measured.then_some(RATE),
            start: self.measured.then(|| Duration::from_secs_f64(self.start)),
            floor: self.measured.then_some(Duration::from_millis(10)),
        };
        let load = (!self.silent).then_some(load);
        Observation { now: Duration::from_secs(self.now), load, pods, speed }
    }

    /// So many are wanted.
    pub fn ask(&mut self, replicas: u32) {
        while self.wanted() < replicas {
            self.starting.push(0.);
        }
        while self.wanted() > replicas {
            if self.starting.pop().is_none() {
                self.ready -= 1;
            }
        }
    }
}

fn slowed(load: Load, (stay, late): (f64, f64), requests: f64, over: f64) -> Load {
    let mut latencies = Histogram::default();
    for answer in 0..requests as u32 {
        let is_late = f64::from(answer) < requests * late;
        latencies.observe(Duration::from_millis(if is_late { 400 } else { 20 }));
    }
    Load { in_hand: stay * requests / over, latencies, ..load }
}
