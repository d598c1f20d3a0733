//! What is decided, and why.

/// The count that a service should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The count.
    pub replicas: u32,
    /// Why it is that.
    pub reason: Reason,
    /// What it was drawn from.
    pub terms: Terms,
}

/// What each term asks for, in replicas, before bounds; for metrics and plots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// The fewest that keep the objective at the arriving work.
    pub rate: f64,
    /// Those that drain what will wait when a new pod could serve.
    pub backlog: f64,
    /// Those among which the waiting requests are the tolerated number for each.
    pub queue: f64,
    /// Those that bring the measured percentile back under its target.
    pub slo: f64,
}

/// Why a count is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The count is right for the arriving work.
    Steady,
}
