//! How fast pods are, found from their batches alone.

use std::time::Duration;

use crate::{observation::Speed, simulate::pod::PodModel};

/// Seconds of work after which a batch counts 1/e.
const MEMORY: f64 = 10.;

/// The line through how long batches of how many tokens took. What a pod does when it always has enough to do is read from
/// it, though at low load no batch is ever full. The two batches of a pod's warm-up, of one token and of a full batch, are never
/// quite forgotten, so that there is a line even where all batches are alike.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    weight: f64,
    tokens: f64,
    seconds: f64,
    token_tokens: f64,
    token_seconds: f64,
    full: f64,
    start: Option<f64>,
}

impl Meter {
    /// A pod answers, so long after it was asked for, and has warmed up.
    pub fn started(&mut self, pod: &PodModel, start: f64) {
        self.start = Some(start);
        self.full = f64::from(pod.batch_tokens);
        for tokens in [1, pod.batch_tokens] {
            self.observe(u64::from(tokens), pod.seconds(u64::from(tokens)));
        }
    }

    /// A batch took so long.
    pub fn observe(&mut self, tokens: u64, seconds: f64) {
        let (kept, tokens) = ((-seconds / MEMORY).exp(), tokens as f64);
        self.weight = self.weight * kept + 1.;
        self.tokens = self.tokens * kept + tokens;
        self.seconds = self.seconds * kept + seconds;
        self.token_tokens = self.token_tokens * kept + tokens * tokens;
        self.token_seconds = self.token_seconds * kept + tokens * seconds;
    }

    /// What is known.
    pub fn speed(&self) -> Speed {
        let Some(start) = self.start else { return Speed::default() };
        // Least squares: slope = cov(tokens, seconds) / var(tokens).
        let spread = self.weight * self.token_tokens - self.tokens * self.tokens;
        let slope = (self.weight * self.token_seconds - self.tokens * self.seconds) / spread;
        let slope = if slope.is_finite() { slope.max(0.) } else { 0. };
        let base = ((self.seconds - slope * self.tokens) / self.weight).max(0.);
        let rate = self.full / (base + slope * self.full);
        Speed {
            rate: Some(rate).filter(|rate| rate.is_finite()),
            start: Duration::try_from_secs_f64(start).ok(),
            floor: Duration::try_from_secs_f64(base + slope).ok(),
        }
    }
}
