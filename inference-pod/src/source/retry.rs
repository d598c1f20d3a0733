//! How often and how soon something is tried again.

use std::time::Duration;

/// A bounded number of tries, each a longer while after the one before.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Tries without any progress, the first one among them.
    pub tries: u32,
    /// Between the first and the second.
    pub first: Duration,
    /// The longest while.
    pub longest: Duration,
}

impl Default for Retry {
    /// 0.5 + 1 + 2 + 4 + 8 + 16 + 30 seconds: about a minute until the pod gives up and is started anew.
    fn default() -> Self {
        Self { tries: 8, first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    /// How long to wait when so many tries have failed; `None` to give up.
    pub fn wait(&self, failed: u32) -> Option<Duration> {
        (failed < self.tries)
            .then(|| self.first.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let waits: Vec<_> =
            (1..).map_while(|failed| Retry::default().wait(failed)).map(|w| w.as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000]);
    }
}
