//! What decides.

use std::time::Duration;

use crate::observation::Observation;

/// What the user wants of a service's count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The fewest replicas. 0 lets the service sleep.
    pub min: u32,
    /// The most replicas.
    pub max: u32,
    /// Waiting requests tolerated for each ready pod.
    pub queue_depth: u32,
    /// The latency to keep.
    pub objective: Option<Objective>,
    /// How long no request must come before the last pod goes, if `min` is 0.
    pub zero_after: Duration,
    /// Whether the policy may tune itself.
    pub tunes: bool,
}

/// A share of the interactive requests is answered within the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The share, from 0 to 1.
    pub share: f64,
    /// The longest from receipt to the last byte.
    pub target: Duration,
}

/// Decides on the count of one service, look by look: ours, and in the simulation its peers.
pub trait Policy {
    /// From one look to the next.
    fn period(&self) -> Duration;

    /// The count that the service should have now.
    fn decide(&mut self, seen: &Observation) -> u32;
}
