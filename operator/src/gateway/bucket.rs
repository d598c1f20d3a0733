//! A token bucket: so much at once, and so much a second in the long run.

use std::time::{Duration, Instant};

/// What may still be taken. It may fall below zero, for what a request costs is known for sure only afterwards.
#[derive(Clone, Debug)]
pub struct Bucket {
    capacity: f64,
    /// What flows in a second.
    rate: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one of `capacity`, into which `rate` flows a second; both more than zero.
    pub fn new(capacity: f64, rate: f64, now: Instant) -> Self {
        Self { capacity, rate, level: capacity, at: now }
    }

    /// How long until so much may be taken; zero if it may be now. What is more than the bucket holds may be taken from
    /// a full one, so that nobody waits for ever.
    pub fn wait(&mut self, amount: f64, now: Instant) -> Duration {
        // Clocks of two threads may have been read in another order than they come here.
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.rate).min(self.capacity);
        self.at = self.at.max(now);
        let missing = amount.min(self.capacity) - self.level;
        // A nanosecond of rounding must not cost a whole wait.
        if missing < 1e-6 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((missing / self.rate).min(86_400.))
        }
    }

    /// Takes so much, or gives back if it is negative.
    pub fn take(&mut self, amount: f64) {
        self.level = (self.level - amount).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_empties_and_fills_again() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2., 4., start);
        for _ in 0..2 {
            assert_eq!(bucket.wait(1., start), Duration::ZERO);
            bucket.take(1.);
        }
        assert_eq!(bucket.wait(1., start), SECOND / 4);
        assert_eq!(bucket.wait(1., start + SECOND / 4), Duration::ZERO);
        bucket.take(1.);
        assert_eq!(bucket.wait(1., start), SECOND / 4, "an older clock changes nothing");
    }

    #[test]
    fn what_is_larger_than_the_bucket_needs_a_full_one_and_leaves_a_debt() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10., 1., start);
        bucket.take(1.);
        assert_eq!(bucket.wait(100., start), SECOND);
        let later = start + SECOND;
        assert_eq!(bucket.wait(100., later), Duration::ZERO);
        bucket.take(100.);
        assert_eq!(bucket.wait(0., later), SECOND * 90, "what costs nothing waits as well");
        bucket.take(-99.);
        assert_eq!(bucket.wait(9., later), Duration::ZERO);
    }

    proptest! {
        /// Whoever asks whenever gets no more than the bucket holds and what flows in, and one request that is too large.
        #[test]
        fn no_more_than_the_rate_in_the_long_run(
            asked in proptest::collection::vec((0u64..2_000, 0u32..40), 1..200),
            capacity in 1u32..20,
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(f64::from(capacity), 5., start);
            let (mut now, mut taken, mut largest) = (start, 0., 0f64);
            for (pause, amount) in asked {
                now += Duration::from_millis(pause);
                let amount = f64::from(amount);
                if bucket.wait(amount, now).is_zero() {
                    bucket.take(amount);
                    taken += amount;
                    largest = largest.max(amount);
                }
            }
            let allowed = f64::from(capacity) + 5. * (now - start).as_secs_f64();
            prop_assert!(taken <= allowed + (largest - f64::from(capacity)).max(0.) + 0.001, "{} > {}", taken, allowed);
        }

        /// Who waits as long as he is told is let in, and had he come sooner he would not have been.
        #[test]
        fn the_wait_that_is_told_is_right(amount in 1u32..40, debt in 1u32..100) {
            let start = Instant::now();
            let mut bucket = Bucket::new(10., 5., start);
            bucket.take(f64::from(10 + debt));
            let wait = bucket.wait(f64::from(amount), start);
            let almost = wait.saturating_sub(Duration::from_millis(1));
            prop_assert!(!bucket.clone().wait(f64::from(amount), start + almost).is_zero());
            prop_assert!(bucket.wait(f64::from(amount), start + wait + Duration::from_nanos(1)).is_zero());
        }
    }
}
