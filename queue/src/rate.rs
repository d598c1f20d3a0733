//! How fast work is done, from how long batches took, and how long other work will take.

use std::time::Duration;

/// Seconds of work after which a measurement counts 1/e.
const MEMORY: f64 = 10.;

/// What was measured of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    tokens: f64,
    seconds: f64,
}

impl Rate {
    /// Counts a batch in.
    pub fn observe(&mut self, tokens: u64, took: Duration) {
        let kept = (-took.as_secs_f64() / MEMORY).exp();
        self.tokens = self.tokens * kept + tokens as f64;
        self.seconds = self.seconds * kept + took.as_secs_f64();
    }

    /// Tokens a second of so many workers at once. `None` before anything was measured.
    pub fn per_second(&self, workers: usize) -> Option<f64> {
        let rate = self.tokens * workers.max(1) as f64 / self.seconds;
        rate.is_finite().then_some(rate)
    }

    /// How long so much work will take, done by so many workers at once. `None` before anything was measured.
    pub fn time_for(&self, tokens: u64, workers: usize) -> Option<Duration> {
        let seconds = tokens as f64 * self.seconds / (self.tokens * workers.max(1) as f64);
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// What one request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Tokens that run before it.
    pub ahead: u64,
    /// Its own.
    pub tokens: u64,
    /// Parts of it that can be run at the same time.
    pub parts: usize,
}

impl Rate {
    /// Whether work cannot be done by so many workers before the patience of its client is over: then how long what is
    /// ahead of it takes, after which it has better chances. What nothing is ahead of is tried whatever was measured,
    /// for else a pod that was slow once would never be measured again.
    pub fn too_late(&self, work: Work, workers: usize, patience: Duration) -> Option<Duration> {
        let Work { ahead, tokens, parts } = work;
        let wait = self.time_for(ahead, workers).filter(|_| ahead > 0)?;
        let run = self.time_for(tokens, workers.min(parts))?;
        (wait.saturating_add(run) > patience).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_known_at_first() {
        assert_eq!(Rate::default().time_for(100, 1), None);
        assert_eq!(Rate::default().per_second(1), None);
    }

    #[test]
    fn work_is_shared_by_the_workers() {
        let mut rate = Rate::default();
        rate.observe(500, SECOND);
        assert_eq!(rate.time_for(1000, 1), Some(2 * SECOND));
        assert_eq!(rate.time_for(1000, 2), Some(SECOND));
        assert_eq!(rate.time_for(0, 2), Some(Duration::ZERO));
        assert_eq!(rate.per_second(2), Some(1000.));
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut rate = Rate::default();
        for _ in 0..100 {
            rate.observe(500, SECOND);
        }
        for _ in 0..100 {
            rate.observe(50, SECOND);
        }
        let time = rate.time_for(50, 1).expect("it was measured").as_secs_f64();
        assert!((time - 1.).abs() < 0.01, "{time}");
    }

    #[test]
    fn a_client_that_would_wait_in_vain_is_told_when_to_come() {
        let mut rate = Rate::default();
        let work = |ahead, tokens, parts| Work { ahead, tokens, parts };
        assert_eq!(rate.too_late(work(1000, 1000, 1), 2, Duration::ZERO), None, "nothing is known");
        rate.observe(500, SECOND);
        for (work, patience, wait) in [
            // Two seconds behind others, shared by two workers, and one of its own, alone.
            (work(2000, 500, 1), 3, None),
            (work(2001, 500, 1), 3, Some(Duration::from_millis(2001))),
            (work(2000, 501, 1), 3, Some(2 * SECOND)),
            (work(2000, 1000, 2), 3, None),
            (work(0, 5000, 1), 3, None),
        ] {
            assert_eq!(rate.too_late(work, 2, patience * SECOND), wait, "{work:?}");
        }
    }
}
