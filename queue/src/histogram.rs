//! How often something took how long, in buckets that are the same in every program, so that counts can be added.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Buckets: one up to 1 ms, four for each doubling up to 2^20 ms, which is 17 minutes, and one for what took longer.
pub const BUCKETS: usize = 1 + 4 * 20 + 1;

/// Counts of durations by bucket. They only grow, and are never more than `u64` holds.
///
/// Bucket `i` holds what took up to [`bound`]`(i)` and longer than the bound before: 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5,
/// 4, 5 ms and so on, so that a percentile read from it is wrong by a quarter at most.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Histogram([u64; BUCKETS]);

/// The longest that falls into a bucket; `None` for the last, which has no end.
pub fn bound(bucket: usize) -> Option<Duration> {
    (bucket + 1 < BUCKETS).then(|| Duration::from_micros(((4 + bucket as u64 % 4) * 250) << (bucket / 4)))
}

/// The first bucket whose bound is not shorter.
fn bucket(took: Duration) -> usize {
    // In quarters of a millisecond, rounded up, the bounds are 4, 5, 6, 7, then twice these, and so on: what is one less has
    // the bucket before in its first three bits.
    let below = took.as_nanos().div_ceil(250_000).saturating_sub(1);
    let Some(doublings) = below.checked_ilog2().and_then(|bits| bits.checked_sub(2)) else { return 0 };
    let quarter = (below >> doublings) as usize - 4;
    (4 * doublings as usize + quarter + 1).min(BUCKETS - 1)
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        let bucket = bucket(took);
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    /// The counts by bucket.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The bound of the bucket in which the given share, from 0 to 1, of all is reached; `None` if nothing was counted or
    /// it took longer than every bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.total() as f64 * share).ceil().max(1.);
        let mut sum = 0_u64;
        let reached = self.0.iter().position(|&count| {
            sum = sum.saturating_add(count);
            sum as f64 >= wanted
        });
        bound(reached?)
    }

    /// The sum.
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Bucket by bucket, `combine` of this and the other.
    pub(crate) fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|bucket| combine(self.0[bucket], other.0[bucket])))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        f.debug_map().entries(counted.map(|(bucket, count)| (bound(bucket), count))).finish()
    }
}

/// As a list of counts, without the empty buckets at its end.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let end = self.0.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
        self.0[..end].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let counts = Vec::<u64>::deserialize(deserializer)?;
        let mut histogram = Self::default();
        let buckets = histogram.0.get_mut(..counts.len());
        buckets
            .ok_or_else(|| D::Error::invalid_length(counts.len(), &"82 buckets"))?
            .copy_from_slice(&counts);
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_as_documented() {
        let bounds: Vec<u64> = (0..BUCKETS).map_while(bound).map(|bound| bound.as_micros() as u64).collect();
        assert_eq!(bounds[..10], [1000, 1250, 1500, 1750, 2000, 2500, 3000, 3500, 4000, 5000]);
        assert_eq!((bounds.len(), bounds.last()), (BUCKETS - 1, Some(&(1000 << 20))));
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1] && pair[1] * 4 <= pair[0] * 5));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        assert!(serde_json::from_str::<Histogram>(&format!("{:?}", [1; BUCKETS])).is_ok());
        assert!(serde_json::from_str::<Histogram>(&format!("{:?}", [1; BUCKETS + 1])).is_err());
        assert_eq!(serde_json::to_string(&Histogram::default()).expect("a list"), "[]");
    }

    proptest! {
        #[test]
        fn each_is_in_the_bucket_of_its_length(micros in 0u64..4_000_000_000) {
            let (mut histogram, took) = (Histogram::default(), Duration::from_micros(micros));
            histogram.observe(took);
            let bucket = histogram.counts().iter().position(|&count| count == 1).expect("it was counted");
            prop_assert!(bound(bucket).is_none_or(|bound| took <= bound));
            prop_assert!(bucket == 0 || bound(bucket - 1).expect("not the last") < took);
            prop_assert_eq!(histogram.quantile(0.5), bound(bucket));
        }

        #[test]
        fn a_quantile_is_at_most_a_quarter_too_high(
            mut micros in proptest::collection::vec(1000u64..1_000_000_000, 1..50), share in 0.0f64..1.0
        ) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|&micros| histogram.observe(Duration::from_micros(micros)));
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
            let (exact, told) = (micros[rank - 1], histogram.quantile(share).expect("within the bounds"));
            prop_assert!(told >= Duration::from_micros(exact) && told <= Duration::from_micros(exact * 5 / 4 + 1));
        }

        #[test]
        fn what_is_written_is_read(micros in proptest::collection::vec(0u64..4_000_000_000, 0..20)) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|&micros| histogram.observe(Duration::from_micros(micros)));
            let text = serde_json::to_string(&histogram).expect("a list");
            prop_assert_eq!(serde_json::from_str::<Histogram>(&text).expect("our own list"), histogram);
        }
    }
}
