//! Whoever decides in a simulation.

use crate::{observation::Observation, policy::Policy};

/// What there is to see. Our own policy is shown the observation alone, as in a cluster, as late as gateways tell it; the rest is
/// what the others' own sources of metrics would tell them, without their lag.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// What the autoscaler of the operator would see.
    pub seen: &'a Observation,
    /// Pods that computed: the mean since the look before.
    pub busy: f64,
    /// Requests that wait at this moment.
    pub waiting: usize,
    /// Requests that pods have in hand at this moment.
    pub in_hand: usize,
    /// It is not yet time for a look, but somebody began to wait though there is no pod.
    pub is_wake: bool,
}

/// Decides on the count of pods.
pub trait Contender {
    /// Seconds from one look to the next.
    fn period(&self) -> f64;

    /// The count that there should be now; bounds are applied after it.
    fn decide(&mut self, sight: &Sight<'_>) -> u32;

    /// Whether it looks at what answers tell: latencies, and how fast pods are. For who does not these are not counted, which
    /// is much of what a play takes.
    fn learns(&self) -> bool {
        true
    }
}

/// A policy of ours.
#[derive(Clone, Debug)]
pub struct Ours<P>(pub P);

impl<P: Policy> Contender for Ours<P> {
    fn period(&self) -> f64 {
        self.0.period().as_secs_f64()
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        self.0.decide(sight.seen)
    }
}

/// So many, whatever happens.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub u32);

impl Contender for Fixed {
    fn period(&self) -> f64 {
        1.
    }

    fn decide(&mut self, _: &Sight<'_>) -> u32 {
        self.0
    }

    fn learns(&self) -> bool {
        false
    }
}
