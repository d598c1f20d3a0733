//! How much work passes in a second.

use std::time::{Duration, Instant};

/// Time after which what passed counts 1/e.
const MEMORY: Duration = Duration::from_secs(5);

/// Tokens a second that passed of late.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    work: f64,
    at: Instant,
}

impl Flow {
    /// Nothing passed yet.
    pub fn new(now: Instant) -> Self {
        Self { work: 0., at: now }
    }

    /// So much passes now.
    pub fn pass(&mut self, work: u64, now: Instant) {
        *self = Self { work: self.left(now) + work as f64, at: self.at.max(now) };
    }

    /// Tokens a second.
    pub fn rate(&self, now: Instant) -> f64 {
        self.left(now) / MEMORY.as_secs_f64()
    }

    fn left(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        self.work * (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_measured_and_forgotten() {
        let mut now = Instant::now();
        let mut flow = Flow::new(now);
        for _ in 0..3000 {
            now += Duration::from_millis(10);
            flow.pass(50, now);
        }
        assert!((flow.rate(now) - 5000.).abs() < 50., "{}", flow.rate(now));
        assert!(flow.rate(now + 10 * MEMORY) < 1.);
    }
}
