//! How many tokens a batch should have, found out by running some.

use std::time::Duration;

/// A size is worth it if it is so much faster than half of it, for a token. All who wait, wait for a whole batch.
const GAIN: f64 = 1.05;

/// Doubles the size of batches while that makes tokens cheaper and there is memory.
#[derive(Clone, Debug)]
pub struct Search {
    next: Option<u64>,
    least: u64,
    most: u64,
    /// The best so far, and its tokens a second.
    best: Option<(u64, f64)>,
}

impl Search {
    /// Begins at `first`. What is found is not less than `least`, the tokens of a longest input, nor more than `most`.
    pub fn new(least: u64, first: u64, most: u64) -> Self {
        let least = least.max(1);
        let most = most.max(least);
        Self { next: Some(first.clamp(least, most)), least, most, best: None }
    }

    /// Tokens of the batch that shall be run next, until it is known.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// It was run, in this time.
    pub fn ran(&mut self, took: Duration) {
        let Some(tokens) = self.next else { return };
        let rate = tokens as f64 / took.as_secs_f64().max(1e-9);
        if self.best.is_some_and(|(_, best)| rate < GAIN * best) {
            self.next = None;
            return;
        }
        self.best = Some((tokens, rate));
        let double = tokens.saturating_mul(2).min(self.most);
        self.next = (double > tokens).then_some(double);
    }

    /// There was not enough memory for it.
    pub fn found_no_memory(&mut self) {
        let Some(tokens) = self.next else { return };
        self.next = match self.best {
            None if tokens > self.least => Some((tokens / 2).max(self.least)),
            None | Some(_) => None,
        };
        // What is larger was tried.
        self.most = (tokens - 1).max(self.least);
    }

    /// The size that was found, if there is memory for any, and its tokens a second.
    pub fn found(&self) -> Option<(u64, f64)> {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A device that takes so many microseconds for a batch, and so many nanoseconds for a token.
    #[derive(Clone, Copy, Debug)]
    struct Device {
        batch_us: u64,
        token_ns: u64,
        memory: u64,
    }

    impl Device {
        fn time(self, tokens: u64) -> Duration {
            Duration::from_nanos(1000 * self.batch_us + self.token_ns * tokens)
        }

        fn rate(self, tokens: u64) -> f64 {
            tokens as f64 / self.time(tokens).as_secs_f64()
        }

        /// What is found, and how many batches it took.
        fn search(self, mut search: Search) -> (Option<u64>, usize) {
            let mut runs = 0;
            while let Some(tokens) = search.next() {
                runs += 1;
                assert!(runs < 100, "it ends");
                if tokens > self.memory {
                    search.found_no_memory();
                } else {
                    search.ran(self.time(tokens));
                }
            }
            (search.found().map(|(tokens, _)| tokens), runs)
        }
    }

    #[test]
    fn a_device_is_filled_and_no_more() {
        let device = Device { batch_us: 1000, token_ns: 400, memory: u64::MAX };
        // At 1024 tokens a batch takes 1.4 ms, at 16384 7.6 ms: 2.17 million tokens a second. Twice that gains 7 %, four
        // times that 4 % more.
        assert_eq!(device.search(Search::new(512, 1024, 1 << 20)).0, Some(32_768));
        assert_eq!(Device { memory: 5000, ..device }.search(Search::new(512, 1024, 1 << 20)).0, Some(4096));
        assert_eq!(Device { memory: 600, ..device }.search(Search::new(512, 1024, 1 << 20)).0, Some(512));
        assert_eq!(Device { memory: 500, ..device }.search(Search::new(512, 1024, 1 << 20)).0, None);
    }

    proptest! {
        #[test]
        fn what_is_found_fits_and_was_worth_it(
            (batch_us, token_ns, memory) in (0..5000u64, 1..5000u64, 1..100_000u64),
            (least, first, most) in (1..2000u64, 1..5000u64, 1..200_000u64),
        ) {
            let device = Device { batch_us, token_ns, memory };
            let (found, runs) = device.search(Search::new(least, first, most));
            prop_assert!(runs <= 40);
            match found {
                None => prop_assert!(memory < least),
                Some(found) => {
                    prop_assert!(found <= memory && found >= least && found <= most.max(least));
                    let double = 2 * found;
                    prop_assert!(
                        double > memory || double > most || device.rate(double) < GAIN * device.rate(found) * 1.001
                    );
                }
            }
        }
    }
}
