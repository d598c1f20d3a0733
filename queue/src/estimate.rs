//! How much work a request is, from its size, before anybody has tokenised it.

/// Bytes of a body that are none of its texts: names of fields, braces, quotes.
const ENVELOPE: usize = 48;

/// Tokens that a model adds to a text.
const SPECIAL: u64 = 2;

/// Tokens a byte before anything was reported: English in JSON.
const FIRST: f64 = 0.25;

/// What a service's tokenizer and texts may come to. Beyond are inputs that were cut, or something that is no text.
const BOUNDS: (f64, f64) = (1. / 64., 2.);

/// Bytes of requests after which a report counts 1/e: some hundred sentences.
const MEMORY: f64 = 64. * 1024.;

/// Tokens a byte in the requests of one service, as its pods report them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    tokens: f64,
    bytes: f64,
}

impl Default for Estimate {
    /// As if one kilobyte had been seen.
    fn default() -> Self {
        Self { tokens: FIRST * 1024., bytes: 1024. }
    }
}

impl Estimate {
    /// The tokens that a body of so many bytes should have; at least one.
    pub fn of(&self, bytes: usize) -> u64 {
        SPECIAL + (text(bytes) * self.ratio()) as u64
    }

    /// Learns what a pod counted.
    pub fn observe(&mut self, bytes: usize, tokens: u64) {
        let bytes = text(bytes).max(1.);
        let tokens = (tokens.saturating_sub(SPECIAL) as f64).clamp(bytes * BOUNDS.0, bytes * BOUNDS.1);
        let kept = (-bytes / MEMORY).exp();
        self.tokens = self.tokens * kept + tokens;
        self.bytes = self.bytes * kept + bytes;
    }

    fn ratio(&self) -> f64 {
        (self.tokens / self.bytes).clamp(BOUNDS.0, BOUNDS.1)
    }
}

fn text(bytes: usize) -> f64 {
    bytes.saturating_sub(ENVELOPE) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_reported_an_estimate_stays_in_its_bounds(
            reports in proptest::collection::vec((any::<usize>(), any::<u64>()), 0..50),
            bytes in 0usize..1 << 30,
        ) {
            let mut estimate = Estimate::default();
            for (bytes, tokens) in reports {
                estimate.observe(bytes, tokens);
            }
            let work = estimate.of(bytes) as f64;
            prop_assert!(work >= 1. && work <= 2. * bytes as f64 + 2., "{work} tokens in {bytes} bytes");
        }

        #[test]
        fn what_pods_report_is_learnt(ratio in 0.02f64..1.9, sizes in proptest::collection::vec(100usize..4000, 500)) {
            let mut estimate = Estimate::default();
            for bytes in sizes {
                estimate.observe(bytes, 2 + (text(bytes) * ratio) as u64);
            }
            let (expected, got) = (952. * ratio, estimate.of(1000) as f64);
            prop_assert!((got - expected).abs() <= 3. + 0.05 * expected, "{got} for {expected}");
        }
    }

    #[test]
    fn a_sentence_is_estimated_before_anything_was_reported() {
        assert_eq!(Estimate::default().of(48 + 64), 18);
        assert_eq!(Estimate::default().of(0), 2);
    }
}
