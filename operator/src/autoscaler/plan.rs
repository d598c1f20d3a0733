//! Which counts to write. Pure: what was seen and the time are arguments.
//!
//! A service is looked at each second while something happens to it or its count is not at its minimum. One that sleeps, or
//! stands at its minimum with nothing to do, costs nothing until something happens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kembed_crds::ScalingStatus;
use kembed_queue::report::{Counts, Level};
use kembed_scaling::{Decision, Observation, Reason, Scaler, Settings, Speed};

use super::{
    change::{Change, Written},
    seen::Seen,
    starting::{PodSeen, Starting},
    traffic::{self, Floor},
    writing::Writing,
};

/// How long a policy is kept of a service to which nothing happens: as long as it remembers.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What decides on one service.
pub trait Judge {
    /// One that has seen nothing.
    fn new(settings: Settings) -> Self;

    /// The user wants something else.
    fn set(&mut self, settings: Settings);

    /// The count that the service should have now.
    fn decide(&mut self, seen: &Observation) -> Decision;

    /// Tunes itself, in about so many microseconds, and tells how if it did.
    fn tune(&mut self, budget: u32) -> Option<String>;
}

impl Judge for Scaler {
    fn new(settings: Settings) -> Self {
        Self::new(settings)
    }

    fn set(&mut self, settings: Settings) {
        self.set(settings);
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        self.decide(seen)
    }

    fn tune(&mut self, budget: u32) -> Option<String> {
        self.tune(budget).map(|tuning| tuning.to_string())
    }
}

/// Whether some count can keep the objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attainable {
    /// Some can, as far as is known.
    Yes,
    /// None can, for a request alone takes as long as this.
    No(Duration),
}

/// What is known of a service at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its pods that have not ended, in the order in which they were made.
    pub pods: Vec<PodSeen>,
    /// What was counted since the look before, and over how long; `None` if it is not known.
    pub counted: Option<(Counts, Duration)>,
    /// What is there now.
    pub level: Level,
    /// Tokens a second that pods said to compute.
    pub rates: Vec<u64>,
    /// Somebody waits though there is no pod, or did and it is not there yet.
    pub wanted: bool,
    /// Something else is about to write its count.
    pub busy: bool,
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// What was decided.
    pub decision: Decision,
    /// What is to be written.
    pub change: Option<Change>,
    /// What the status is to say from now on, though the count stays.
    pub explained: Explained,
}

/// What a status is to say from now on; `None` where it says it already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// Why the count is what it is.
    pub reason: Option<Reason>,
    /// Whether some count can keep the objective.
    pub attainable: Option<Attainable>,
}

/// What was decided for a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided {
    /// Why the count is what it is.
    pub scaling: Option<ScalingStatus>,
    /// Whether some count can keep the objective.
    pub attainable: Option<Attainable>,
}

/// All services that scale and were looked at.
#[derive(Debug)]
pub struct Plan<J> {
    began: Instant,
    services: BTreeMap<String, Entry<J>>,
}

#[derive(Debug)]
struct Entry<J> {
    /// Of the service. One of its name that is made anew begins anew.
    uid: String,
    settings: Settings,
    judge: J,
    starting: Starting,
    rate: Option<f64>,
    floor: Floor,
    writing: Writing,
    told: Option<Reason>,
    told_attainable: Option<bool>,
    looked: Instant,
    tuned: Instant,
    /// Whether something happened when it was last known what happens.
    active: bool,
}

impl<J: Judge> Plan<J> {
    /// Has looked at nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, services: BTreeMap::new() }
    }

    /// Whether a service is to be looked at. `happened`: whether anything did, if that is known.
    pub fn concerns(&mut self, service: &str, seen: &Seen, happened: Option<bool>) -> bool {
        let entry = self.services.get_mut(service).filter(|entry| entry.uid == seen.uid);
        let was_active = entry.as_ref().is_some_and(|entry| entry.active);
        let writes = entry.as_ref().is_some_and(|entry| !entry.writing.is_settled(&seen.version));
        let active = happened.unwrap_or(was_active);
        if let Some(entry) = entry {
            entry.active = active;
        }
        active || writes || seen.replicas != seen.settings.min
    }

    /// Looks at one service.
    pub fn look(&mut self, service: &str, seen: &Seen, facts: &Facts, now: Instant) -> Look {
        let began = self.began;
        let new = || Entry::new(seen, began, now);
        let entry = self.services.entry(service.to_owned()).or_insert_with(new);
        if entry.uid != seen.uid {
            *entry = new();
        }
        entry.learn(seen, facts);
        let count = entry.writing.count(seen);
        let mut observation = entry.observe(count, facts, began, now);
        let pods = &mut observation.pods;
        pods.no_capacity = seen.node_comes.map_or(pods.no_capacity, |comes| !comes);
        if let Some(slept) = entry.slept(&observation, facts, now) {
            entry.judge.decide(&slept);
        }
        entry.looked = now;
        observation.now = now.saturating_duration_since(began);
        let decision = entry.judge.decide(&observation);
        let (to, reason) = bounded(&decision, seen, count, facts.wanted, observation.pods.ready);
        let may_write = !facts.busy && entry.writing.may_begin(seen, now);
        let change = (to != count && may_write).then(|| Change {
            service: service.to_owned(),
            version: seen.version.clone(),
            from: count,
            to,
            reason,
        });
        if change.is_some() {
            entry.writing.begin();
            entry.told = Some(reason);
            entry.starting.ask(to, now);
        }
        let explained = Explained {
            reason: if to == count { entry.news(reason) } else { None },
            attainable: entry.attainable(&decision, &observation),
        };
        Look { decision, change, explained }
    }

    /// A write that a look asked for has ended.
    pub fn ended(&mut self, change: &Change, written: Written, now: Instant) {
        if let Some(entry) = self.services.get_mut(&change.service) {
            entry.writing.end(change, written, now);
        }
    }

    /// Tunes the service among these that was tuned longest ago, in about so many microseconds, unless that was less than
    /// `period` ago.
    pub fn tune<'a>(
        &mut self,
        among: impl Iterator<Item = &'a String>,
        budget: u32,
        period: Duration,
        now: Instant,
    ) -> Option<(&'a String, Option<String>)> {
        let tuned = |service: &&String| self.services.get(*service).map(|entry| entry.tuned);
        let next = among.filter(|service| tuned(service).is_some()).min_by_key(tuned)?;
        let entry = self.services.get_mut(next)?;
        if now.saturating_duration_since(entry.tuned) < period {
            return None;
        }
        entry.tuned = now;
        Some((next, entry.judge.tune(budget)))
    }

    /// Forgets services that do not scale any more, and those to which nothing happened for long.
    pub fn retain(&mut self, scales: impl Fn(&str) -> bool, now: Instant) {
        self.services.retain(|service, entry| {
            scales(service) && now.saturating_duration_since(entry.looked) < REMEMBERED
        });
    }
}

impl<J: Judge> Entry<J> {
    fn new(seen: &Seen, led: Instant, now: Instant) -> Self {
        Self {
            uid: seen.uid.clone(),
            settings: seen.settings,
            judge: J::new(seen.settings),
            starting: Starting::new(led),
            rate: None,
            floor: Floor::default(),
            writing: Writing::default(),
            told: seen.told,
            told_attainable: seen.told_attainable,
            looked: now,
            tuned: now,
            active: true,
        }
    }

    fn learn(&mut self, seen: &Seen, facts: &Facts) {
        if self.settings != seen.settings {
            self.settings = seen.settings;
            self.judge.set(seen.settings);
        }
        // Of a service that sleeps, the last pods' holds.
        self.rate = traffic::rate(facts.rates.iter().copied()).or(self.rate);
        if let Some((counts, over)) = &facts.counted {
            self.floor.learn(counts, *over);
        }
    }

    fn observe(&mut self, count: u32, facts: &Facts, began: Instant, now: Instant) -> Observation {
        let counted = facts.counted.as_ref();
        Observation {
            now: now.saturating_duration_since(began),
            load: counted.map(|(counts, over)| traffic::load(counts, &facts.level, *over, facts.wanted)),
            pods: self.starting.look(count, &facts.pods, now),
            speed: Speed { rate: self.rate, start: self.starting.takes(), floor: self.floor.known() },
        }
    }

    /// A reason that was not told. That all is well is news only where something stood in the way: the count still is what it
    /// is for the reason that it was changed for last, by whoever did.
    fn news(&mut self, reason: Reason) -> Option<Reason> {
        let known = match self.told {
            None => false,
            Some(told) => told == reason || (reason == Reason::Steady && !told.stands_in_the_way()),
        };
        (!known).then(|| *self.told.insert(reason))
    }

    /// Whether some count can keep the objective, if that is known and was not told.
    fn attainable(&mut self, decision: &Decision, observation: &Observation) -> Option<Attainable> {
        let known = observation.speed.floor.map(|_| Attainable::Yes);
        let attainable = decision.unattainable.map(Attainable::No).or(known)?;
        let told = Some(attainable == Attainable::Yes);
        (std::mem::replace(&mut self.told_attainable, told) != told).then_some(attainable)
    }

    /// The look that was left out, if nothing happened for a while: what happens now came all at its end.
    fn slept(&self, observation: &Observation, facts: &Facts, now: Instant) -> Option<Observation> {
        let (_, over) = facts.counted.as_ref()?;
        let asleep = now.saturating_duration_since(self.looked).checked_sub(*over)?;
        // Looks are not quite a second apart.
        if asleep < 2 * Duration::from_secs(1) {
            return None;
        }
        let load = traffic::load(&Counts::default(), &Level::default(), asleep, false);
        let at = observation.now.saturating_sub(*over);
        Some(Observation { now: at, load: Some(load), ..observation.clone() })
    }
}

/// What is decided, with what holds whatever is: the bounds, and that the first pod comes alone.
fn bounded(decision: &Decision, seen: &Seen, count: u32, wanted: bool, ready: u32) -> (u32, Reason) {
    let Settings { min, max, .. } = seen.settings;
    if count > max {
        return (max, Reason::Bounds);
    }
    if count < min {
        // The first pod of a service proves the model and records its vector space.
        let first = if ready == 0 { count.max(1) } else { min };
        return (first, Reason::Bounds);
    }
    // At zero an activation asks for the first pod, at once, and then holds it until it answers.
    let (least, most) = match count {
        0 => (0, 0),
        _ if wanted => (min.max(1), max),
        _ => (min, max),
    };
    (decision.replicas.clamp(least, most), decision.reason)
}

#[cfg(test)]
mod tests;
