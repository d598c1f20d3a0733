//! How much a batch may have, which is less for a while after memory was short.

use std::time::{Duration, Instant};

use kembed_queue::Budget;

/// What was taken away comes back by doubling, once each such while without a new shortage.
const WHILE: Duration = Duration::from_secs(60);

/// The budget of batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    full: Budget,
    /// Tokens that are allowed instead, since when.
    less: Option<(u64, Instant)>,
}

impl Allowance {
    /// All of a budget.
    pub(super) fn new(full: Budget) -> Self {
        Self { full, less: None }
    }

    /// What the next batch may have.
    pub(super) fn budget(&mut self, now: Instant) -> Budget {
        let Some((tokens, since)) = self.less else { return self.full };
        let whiles = now.saturating_duration_since(since).as_secs() / WHILE.as_secs();
        let tokens = tokens.saturating_mul(2u64.saturating_pow(u32::try_from(whiles).unwrap_or(u32::MAX)));
        if tokens >= self.full.tokens {
            self.less = None;
            return self.full;
        }
        Budget { tokens, ..self.full }
    }

    /// So many tokens were too many.
    pub(super) fn shrink(&mut self, tokens: u64, now: Instant) {
        let allowed = self.budget(now).tokens.min((tokens / 2).max(1));
        self.less = Some((allowed, now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: Budget = Budget { tokens: 1000, rows: 7 };

    #[test]
    fn a_shortage_halves_and_passes() {
        let start = Instant::now();
        let mut allowance = Allowance::new(FULL);
        assert_eq!(allowance.budget(start), FULL);
        allowance.shrink(400, start);
        let tokens = [0, 59, 60, 120, 180].map(|s| allowance.budget(start + Duration::from_secs(s)).tokens);
        assert_eq!(tokens, [200, 200, 400, 800, 1000]);
        assert_eq!(allowance.budget(start), FULL, "it has passed");
    }

    proptest! {
        #[test]
        fn it_is_never_more_than_all_nor_nothing_and_comes_back(
            shortages in proptest::collection::vec((0..200u64, 0..3000u64), 0..40),
        ) {
            let mut now = Instant::now();
            let mut allowance = Allowance::new(FULL);
            for (seconds, tokens) in shortages {
                now += Duration::from_secs(seconds);
                allowance.shrink(tokens, now);
                let allowed = allowance.budget(now);
                prop_assert!((1..=FULL.tokens).contains(&allowed.tokens) && allowed.rows == FULL.rows);
                prop_assert!(allowed.tokens <= (tokens / 2).max(1), "{tokens} were too many");
            }
            // From one to a thousand takes ten doublings.
            prop_assert_eq!(allowance.budget(now + 10 * WHILE), FULL);
        }
    }
}
