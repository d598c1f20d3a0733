//! What a dispatcher counts, for whoever decides on replicas.

use std::time::Instant;

/// How much there is of something, and its integral over time: what a reader subtracts from what it read before, to know
/// the mean in between exactly, however short the peaks were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Requests now.
    pub requests: u64,
    /// Tokens of them, as estimated when they came.
    pub work: u64,
    request_nanos: u128,
    work_nanos: u128,
}

impl Level {
    /// Sum over time of the number of requests, in seconds.
    pub fn request_seconds(&self) -> f64 {
        self.request_nanos as f64 / 1e9
    }

    /// Sum over time of the work, in seconds of a token.
    pub fn work_seconds(&self) -> f64 {
        self.work_nanos as f64 / 1e9
    }

    fn pass(&mut self, nanos: u128) {
        self.request_nanos += u128::from(self.requests) * nanos;
        self.work_nanos += u128::from(self.work) * nanos;
    }
}

/// How many and how much, since the dispatcher began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests.
    pub requests: u64,
    /// Tokens of them, as estimated when they came.
    pub work: u64,
}

impl Count {
    fn add(&mut self, work: u64) {
        self.requests += 1;
        self.work += work;
    }
}

/// The figures of one lane. `came = waiting.requests + in_hand.requests + answered + refused + left` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneFigures {
    /// Wait for a pod.
    pub waiting: Level,
    /// Are at a pod.
    pub in_hand: Level,
    /// Came.
    pub came: Count,
    /// Were answered by a pod.
    pub answered: Count,
    /// Were refused, at once or later.
    pub refused: Count,
    /// Ended otherwise: the client left, or a pod took too long.
    pub left: Count,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    InHand,
    Answered,
    Refused,
    Left,
}

/// The figures of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Of requests whose clients wait.
    pub interactive: LaneFigures,
    /// Of the others.
    pub bulk: LaneFigures,
    /// Until when the integrals go.
    pub at: Instant,
}

impl Figures {
    /// All zero.
    pub fn new(now: Instant) -> Self {
        Self { interactive: LaneFigures::default(), bulk: LaneFigures::default(), at: now }
    }

    /// Brings the integrals up to now.
    pub(crate) fn pass(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.at).as_nanos();
        for lane in [&mut self.interactive, &mut self.bulk] {
            lane.waiting.pass(nanos);
            lane.in_hand.pass(nanos);
        }
        self.at = self.at.max(now);
    }
}

impl LaneFigures {
    pub(crate) fn come(&mut self, work: u64) {
        self.came.add(work);
    }

    /// A request goes from one stage to the next; `None` is outside.
    pub(crate) fn step(&mut self, from: Option<Stage>, to: Stage, work: u64) {
        match from {
            Some(Stage::Waiting) => self.waiting.sub(work),
            Some(Stage::InHand) => self.in_hand.sub(work),
            _ => {}
        }
        match to {
            Stage::Waiting => self.waiting.add(work),
            Stage::InHand => self.in_hand.add(work),
            Stage::Answered => self.answered.add(work),
            Stage::Refused => self.refused.add(work),
            Stage::Left => self.left.add(work),
        }
    }
}

impl Level {
    fn add(&mut self, work: u64) {
        self.requests += 1;
        self.work += work;
    }

    fn sub(&mut self, work: u64) {
        self.requests -= 1;
        self.work -= work;
    }
}
