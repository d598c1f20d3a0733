//! Decides nothing of its own: a count stays what it is, within its bounds. Pure.

use kembed_scaling::{Decision, Observation, Reason, Settings, Terms};

use super::plan::Judge;

/// Leaves a count alone.
#[derive(Debug)]
pub struct Keeper;

impl Judge for Keeper {
    fn new(_: Settings) -> Self {
        Self
    }

    fn set(&mut self, _: Settings) {}

    fn decide(&mut self, seen: &Observation) -> Decision {
        Decision { replicas: seen.pods.wanted, reason: Reason::Steady, terms: Terms::default() }
    }
}
