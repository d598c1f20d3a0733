//! What is seen of a service at one moment.

use std::time::Duration;

use kembed_queue::histogram::Histogram;

/// What is seen of a service at one look. A policy is shown one each period.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Since some moment before the first look, by a clock that only grows. Between two looks more may pass than the period.
    pub now: Duration,
    /// What its requests did since the look before. `None`: not known, which is not the same as nothing.
    pub load: Option<Load>,
    /// Its pods.
    pub pods: Pods,
    /// How fast they are.
    pub speed: Speed,
}

/// What the requests of a service did between two looks. Tokens are the work that a request is for a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// The time between the two, in which all this was counted. Zero at the first look.
    pub over: Duration,
    /// Requests that came.
    pub arrived: f64,
    /// Their tokens.
    pub arrived_tokens: f64,
    /// The sum of the squares of their tokens.
    pub arrived_squares: f64,
    /// Tokens of the requests that were answered.
    pub answered_tokens: f64,
    /// Requests that waited for a pod: the mean over the time.
    pub waiting: f64,
    /// Requests that pods had in hand: the mean over the time.
    pub in_hand: f64,
    /// Requests that wait for a pod or that pods have in hand, at its end.
    pub requests: f64,
    /// Tokens of the requests that wait for a pod, at its end.
    pub waiting_tokens: f64,
    /// Tokens of the requests that pods have in hand, at its end.
    pub in_hand_tokens: f64,
    /// Receipt to last byte of the interactive requests that were answered.
    pub latencies: Histogram,
    /// Somebody waits though the service has no pod.
    pub wanted: bool,
}

/// The pods of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// The count that was asked for last.
    pub wanted: u32,
    /// Pods that answer.
    pub ready: u32,
    /// How long ago each pod was asked for that does not answer yet, whether it exists or not. The oldest first.
    pub starting: Vec<Duration>,
    /// The pod that was made last ends again and again.
    pub crash_looping: bool,
    /// No node can come for a pod that waits for one.
    pub no_capacity: bool,
}

/// How fast the pods of a service are, as measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Tokens a second that one pod computes when it always has enough to do.
    pub rate: Option<f64>,
    /// From when a pod is asked for until it answers.
    pub start: Option<Duration>,
    /// What the shortest request takes in a pod that has nothing else to do.
    pub floor: Option<Duration>,
}
