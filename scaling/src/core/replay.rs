//! The last hour again, with other knobs.
//!
//! The decisions are made by the very code that makes the real ones. The pods are simpler than real ones: work is a fluid that
//! flows second by second, what does not fit waits, and how many requests are late although all fits is what the formula says.

use std::time::Duration;

use super::{
    erlang,
    history::History,
    knobs::Knobs,
    look::Known,
    mind::{Ahead, Foresight, Mind},
};
use crate::{
    observation::{Observation, Pods, Speed},
    policy::Settings,
};

/// Seconds over which the work that there was is smoothed to say how many replicas would have been enough.
const IDEAL: usize = 60;

/// What is lived through again.
#[derive(Debug)]
pub struct Past {
    /// Tokens by second.
    work: Vec<f64>,
    /// What was to be expected in each.
    ahead: Vec<Ahead>,
    /// What the requests and pods are like.
    service: Service,
    settings: Settings,
}

/// What requests and pods are like, which is taken to have been so for all of the time.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Tokens a second that a pod computes.
    pub rate: f64,
    /// Seconds that it takes to start.
    pub start: f64,
    /// Tokens of a request.
    pub size: f64,
    /// See [`Sizes::lump`](super::sizes::Sizes::lump).
    pub lump: f64,
    /// Seconds that a request may wait.
    pub slack: f64,
}

/// Seconds until it counts how it goes: the first pods and the first windows are what they are by guess.
const WARM: usize = 120;

/// Seconds of each part of the past that is told apart.
const PART: usize = 600;

/// How it went, part by part. Sums are what all parts have together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome(Vec<Part>);

/// Ten minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    /// Pods that there were, times seconds, over those that would have been enough in the whole time.
    replicas: f64,
    /// Work that was late, as a share of that of the whole time.
    late: f64,
}

impl Outcome {
    /// The share of the work that was late.
    pub fn late(&self) -> f64 {
        self.0.iter().map(|part| part.late).sum()
    }

    /// What it cost, if all work that is late costs as much as `weight` times an ideal number of pods.
    pub fn cost(&self, weight: f64) -> f64 {
        self.costs(weight).sum()
    }

    /// The same part by part.
    pub fn costs(&self, weight: f64) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().map(move |part| part.replicas + weight * part.late)
    }
}

impl Past {
    /// What is known of the last hour.
    pub fn new(history: &History, service: Service, settings: Settings) -> Self {
        let work: Vec<f64> = history.seconds().map(|second| history.at(second)).collect();
        let (mut again, mut foresight) = (History::default(), Foresight::default());
        let ahead = work.iter().map(|&tokens| {
            again.add(1., tokens);
            foresight.look(&again, service.start, service.lump)
        });
        Self { ahead: ahead.collect(), work, service, settings }
    }

    /// Seconds.
    pub fn len(&self) -> usize {
        self.work.len()
    }

    /// Lives through it with these knobs.
    pub fn live(&self, knobs: &Knobs) -> Outcome {
        let mut world = World::new(self);
        let mut mind = Mind::default();
        for (second, (&work, ahead)) in self.work.iter().zip(&self.ahead).enumerate() {
            if second % PART == 0 {
                world.parts.push(Part::default());
            }
            world.pass(work);
            let seen = world.look(second);
            let known = Known::of(seen, None);
            let decision = mind.decide(seen, known.as_ref(), ahead, knobs, &self.settings);
            world.ask(decision.replicas);
        }
        let (total, ideal) = (self.work.iter().sum::<f64>().max(1.), self.ideal());
        let part = |part: &Part| Part { replicas: part.replicas / ideal, late: part.late / total };
        Outcome(world.parts.iter().map(part).collect())
    }

    /// Replica-seconds that would have been enough for who knew all.
    fn ideal(&self) -> f64 {
        let minutes = self
            .minutes()
            .map(|(seconds, replicas)| f64::from(replicas.max(self.settings.min)) * seconds as f64);
        minutes.sum::<f64>().max(1.)
    }

    /// Replicas that the busiest minute took.
    pub fn most(&self) -> u32 {
        self.minutes().map(|(_, replicas)| replicas).max().unwrap_or(0)
    }

    /// Minute by minute how long it was, and how many replicas were as busy as they can be.
    fn minutes(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.work.chunks(IDEAL).map(|minute| {
            let mean = minute.iter().sum::<f64>() / minute.len() as f64;
            (minute.len(), (mean / self.service.rate).ceil() as u32)
        })
    }
}

/// The service as it would have been.
struct World {
    service: Service,
    seen: Observation,
    ready: u32,
    /// Seconds since each was asked for, the oldest first.
    starting: Vec<f64>,
    queued: f64,
    work: f64,
    served: f64,
    passed: usize,
    parts: Vec<Part>,
}

impl World {
    fn new(past: &Past) -> Self {
        let service = past.service;
        let first: f64 = past.work.iter().take(IDEAL).sum::<f64>() / IDEAL as f64;
        let ready = ((first / service.rate).ceil() as u32)
            .clamp(past.settings.min, past.settings.max.max(past.settings.min));
        let speed = Speed {
            rate: Some(service.rate),
            start: Some(Duration::from_secs_f64(service.start)),
            floor: None,
        };
        let pods = Pods { wanted: ready, ready, ..Pods::default() };
        let load = Some(Default::default());
        Self {
            service,
            seen: Observation { now: Duration::ZERO, load, pods, speed },
            ready,
            starting: Vec::new(),
            queued: 0.,
            work: 0.,
            served: 0.,
            passed: 0,
            parts: Vec::new(),
        }
    }

    /// One second, in which so much work came.
    fn pass(&mut self, work: f64) {
        self.starting.iter_mut().for_each(|age| *age += 1.);
        let come = self.starting.iter().take_while(|age| **age >= self.service.start).count();
        self.starting.drain(..come);
        self.ready += come as u32;
        let power = f64::from(self.ready) * self.service.rate;
        let before = self.queued;
        self.served = (before + work).min(power);
        self.queued = before + work - self.served;
        self.work = work;
        let late = work * self.share_late(before / power.max(1e-9), self.queued / power.max(1e-9));
        let pods = f64::from(self.ready) + self.starting.len() as f64;
        self.passed += 1;
        if let Some(part) = self.parts.last_mut().filter(|_| self.passed > WARM) {
            (part.late, part.replicas) = (part.late + late, part.replicas + pods);
        }
    }

    /// Of what came in a second at whose begin and end one waited so long.
    fn share_late(&self, from: f64, to: f64) -> f64 {
        let slack = self.service.slack;
        if self.work <= 0. {
            return 0.;
        }
        let (least, most) = (from.min(to), from.max(to));
        let piled = if least >= slack {
            1.
        } else if most <= slack {
            0.
        } else {
            (most - slack) / (most - least)
        };
        let (load, service) = (self.work / self.service.rate, self.service.size / self.service.rate);
        let variation = (self.service.lump / self.service.size - 1.).max(0.);
        let chance = if load < f64::from(self.ready) {
            erlang::late(self.ready, load, service, variation, slack)
        } else {
            0.
        };
        piled + (1. - piled) * chance
    }

    fn look(&mut self, second: usize) -> &Observation {
        let Service { size, lump, rate, .. } = self.service;
        let requests = self.work / size;
        if let Some(load) = &mut self.seen.load {
            load.over = Duration::from_secs(1);
            load.arrived = requests;
            load.arrived_tokens = self.work;
            load.arrived_squares = self.work * lump;
            load.answered_tokens = self.served;
            load.waiting = self.queued / size;
            load.in_hand = self.served / rate;
            load.requests = (self.queued + self.served) / size;
            load.waiting_tokens = self.queued;
            load.wanted = self.ready == 0 && self.queued > 0.;
        }
        self.seen.now = Duration::from_secs(second as u64 + 1);
        self.seen.pods.ready = self.ready;
        self.seen.pods.wanted = self.ready + self.starting.len() as u32;
        self.seen.pods.starting.clear();
        self.seen.pods.starting.extend(self.starting.iter().map(|age| Duration::from_secs_f64(*age)));
        &self.seen
    }

    /// So many are wanted. Those that are not ready go first.
    fn ask(&mut self, replicas: u32) {
        let there = self.ready + self.starting.len() as u32;
        for _ in there..replicas {
            self.starting.push(0.);
        }
        for _ in replicas..there {
            if self.starting.pop().is_none() {
                self.ready -= 1;
            }
        }
    }
}

/// Bursts of a minute that are over before a pod is there, and come when nobody expects them.
#[cfg(test)]
pub(super) fn bursts(second: u32) -> f64 {
    let is_burst = [0, 490, 1480, 1870, 2710, 3000].iter().any(|from| (*from..from + 60).contains(&second));
    if is_burst { 2900. } else { 10. }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Objective;

    const SERVICE: Service = Service { rate: 1000., start: 20., size: 10., lump: 10., slack: 0.1 };

    fn settings() -> Settings {
        let target = Duration::from_millis(200);
        let zero_after = Duration::from_secs(60);
        let objective = Some(Objective { share: 0.95, target });
        Settings { min: 0, max: 20, queue_depth: 16, objective, zero_after, tunes: true }
    }

    fn past(work: impl Fn(u32) -> f64) -> Past {
        let mut history = History::default();
        (0..3600).for_each(|second| history.add(1., work(second)));
        Past::new(&history, SERVICE, settings())
    }

    #[test]
    fn steady_work_costs_little_more_than_it_must() {
        let lived = past(|_| 3500.).live(&Knobs::default());
        assert!((0.96..1.).contains(&lived.cost(0.)) && lived.late() < 0.005, "{lived:?}");
    }

    #[test]
    fn what_comes_suddenly_is_late_and_less_so_with_pods_that_stand_by() {
        let past = past(bursts);
        let few = past.live(&Knobs::default());
        let many = past.live(&Knobs { standing: 3, ..Knobs::default() });
        assert!(few.late() > 0.3 && many.late() < 0.15, "{few:?} {many:?}");
        assert!(few.cost(0.) < many.cost(0.));
        assert!(many.cost(8.) < few.cost(8.));
    }

    /// It is lived through within a budget, so it may not take any other time the second time.
    #[test]
    fn it_goes_the_same_again() {
        let past = past(|second| f64::from((second * 7919) % 4000 + 1));
        assert_eq!(past.live(&Knobs::default()), past.live(&Knobs::default()));
        assert_eq!(past.len(), 3600);
    }
}
