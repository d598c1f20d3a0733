//! The autoscaler of one service.

use std::time::Duration;

use super::{
    history::History,
    knobs::Knobs,
    look::{Known, Measured},
    mind::{Foresight, Mind, USUAL_START},
    replay::Past,
    tuner::{Tuner, Tuning},
};
use crate::{
    decision::Decision,
    observation::Observation,
    policy::{Policy, Settings},
};

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Seconds of simulated time that one tuning of the simulation may take.
const BUDGET: u32 = 9 * 3600;

/// Decides on the count of one service, look by look, and tunes itself.
#[derive(Clone, Debug)]
pub struct Scaler {
    settings: Settings,
    knobs: Knobs,
    mind: Mind,
    history: History,
    foresight: Foresight,
    tuner: Tuner,
    /// The last look at pods' speed.
    measured: Measured,
    /// The minute in which it was last tuned by itself.
    tuned: u64,
}

impl Scaler {
    /// Knows nothing of the service but what its user wants.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            knobs: Knobs::default(),
            mind: Mind::default(),
            history: History::default(),
            foresight: Foresight::default(),
            tuner: Tuner::default(),
            measured: Measured::default(),
            tuned: 0,
        }
    }

    /// The user wants something else. What was learned of the service stays, but for what was tuned if that is switched off.
    pub fn set(&mut self, settings: Settings) {
        if !settings.tunes {
            self.knobs = Knobs::default();
        }
        self.settings = settings;
    }

    /// The count that the service should have now: never outside its bounds, and never lower for want of knowledge. Looks
    /// come about once a second; one that comes late is none to be surprised at.
    pub fn decide(&mut self, seen: &Observation) -> Decision {
        let known = Known::of(seen, self.settings.objective);
        self.measured = Measured::from(&seen.speed);
        if let Some(known) = &known {
            self.history.add(known.over, known.tokens);
        }
        let lead = self.measured.start.unwrap_or(USUAL_START);
        let ahead = self.foresight.look(&self.history, lead, self.mind.lump());
        self.mind.decide(seen, known.as_ref(), &ahead, &self.knobs, &self.settings)
    }

    /// Lives through the last hour again with a few other settings, and takes one that would have been clearly better. No more
    /// than `budget` seconds are lived through, all together, each of which takes about a microsecond; what is not tried now is
    /// tried the next time. To be called about once a minute.
    pub fn tune(&mut self, budget: u32) -> Option<Tuning> {
        let rate = self.measured.rate.filter(|_| self.settings.tunes)?;
        let start = self.measured.start.unwrap_or(USUAL_START);
        let service = self.mind.service(rate, start, &self.settings, &self.measured);
        let past = Past::new(&self.history, service, self.settings);
        let allowed = self.settings.objective.map_or(0.05, |objective| 1. - objective.share);
        let tuning = self.tuner.search(&past, &self.knobs, allowed, budget)?;
        self.knobs = tuning.to;
        Some(tuning)
    }

    /// What it is set to.
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Bytes of what it remembers of the past.
    pub fn bytes(&self) -> usize {
        self.history.bytes() + self.foresight.bytes()
    }
}

impl Policy for Scaler {
    fn period(&self) -> Duration {
        PERIOD
    }

    /// With a tuning each minute.
    fn decide(&mut self, seen: &Observation) -> u32 {
        if seen.now.as_secs() / 60 > self.tuned {
            self.tuned = seen.now.as_secs() / 60;
            self.tune(BUDGET);
        }
        Self::decide(self, seen).replicas
    }
}
