//! How long a pod takes for a batch.

/// A pod that answers what it takes in hand together, after a time that has a constant part and one for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodModel {
    /// Seconds that any batch takes.
    pub batch_seconds: f64,
    /// Seconds for each token of it.
    pub token_seconds: f64,
    /// The most tokens of a batch. A request that is longer is one alone.
    pub batch_tokens: u32,
}

impl PodModel {
    /// Seconds that a batch takes.
    pub fn seconds(&self, tokens: u64) -> f64 {
        self.batch_seconds + self.token_seconds * tokens as f64
    }

    /// Tokens a second when there is always a full batch to take.
    pub fn rate(&self) -> f64 {
        f64::from(self.batch_tokens) / self.seconds(u64::from(self.batch_tokens))
    }
}

/// A small model on a small GPU: 47,670 tokens a second.
impl Default for PodModel {
    fn default() -> Self {
        Self { batch_seconds: 0.002, token_seconds: 20e-6, batch_tokens: 2048 }
    }
}
