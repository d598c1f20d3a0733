//! How well it went.

/// Buckets for each doubling of a latency: a percentile is wrong by at most 1 / 128.
const STEPS: u32 = 7;

/// What a policy cost and what it gave for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// Requests that came.
    pub requests: u64,
    /// Those that were not answered within the target.
    pub missed: u64,
    /// Seconds of pods, each from when it was asked for until it was gone.
    pub replica_seconds: f64,
    /// Requests that came while no pod answered.
    pub cold: u64,
    /// How often the wanted count changed.
    pub scale_events: u64,
    latencies: Latencies,
}

impl Score {
    /// One was answered.
    pub(crate) fn answer(&mut self, seconds: f64, target: f64) {
        self.missed += u64::from(seconds > target);
        self.latencies.observe(seconds);
    }

    /// So many never were.
    pub(crate) fn give_up(&mut self, requests: u64) {
        self.missed += requests;
        self.latencies.never += requests;
    }

    /// The share of requests over the target.
    pub fn miss_share(&self) -> f64 {
        self.missed as f64 / self.requests.max(1) as f64
    }

    /// The latency, in seconds, within which that share of requests was answered; 0 without requests, and infinite if
    /// fewer were.
    pub fn quantile(&self, share: f64) -> f64 {
        self.latencies.quantile(share)
    }

    /// Mean latency of those that were answered, in seconds.
    pub fn mean_latency(&self) -> f64 {
        self.latencies.sum / self.latencies.answered.max(1) as f64
    }

    /// Replica-seconds in those of whoever knew the future, and `weight` for the share of misses.
    pub fn cost(&self, clairvoyant: f64, weight: f64) -> f64 {
        self.replica_seconds / clairvoyant + weight * self.miss_share()
    }

    /// Whether it is no worse in either and better in one.
    pub fn beats(&self, other: &Self) -> bool {
        let (cheaper, better) = (self.replica_seconds <= other.replica_seconds, self.missed <= other.missed);
        cheaper && better && (self.replica_seconds < other.replica_seconds || self.missed < other.missed)
    }
}

/// Counts by bucket of the logarithm.
#[derive(Clone, Debug, Default, PartialEq)]
struct Latencies {
    counts: Vec<u64>,
    sum: f64,
    answered: u64,
    /// They were not.
    never: u64,
}

impl Latencies {
    fn observe(&mut self, seconds: f64) {
        // The exponent and the first bits of the fraction, from a microsecond on.
        let bucket = (bits(seconds.max(1e-6)) - bits(1e-6)) as usize;
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.sum += seconds;
        self.answered += 1;
    }

    fn quantile(&self, share: f64) -> f64 {
        let all = self.answered + self.never;
        if all == 0 {
            return 0.;
        }
        let wanted = (all as f64 * share).ceil().max(1.);
        let mut sum = 0;
        let reached = self.counts.iter().position(|count| {
            sum += count;
            sum as f64 >= wanted
        });
        // The upper end of the bucket.
        reached
            .map_or(f64::INFINITY, |bucket| f64::from_bits((bits(1e-6) + bucket as u64 + 1) << (52 - STEPS)))
    }
}

fn bits(seconds: f64) -> u64 {
    seconds.to_bits() >> (52 - STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_hundredth() {
        let mut score = Score { requests: 1000, ..Score::default() };
        (1..=1000).for_each(|index| score.answer(f64::from(index) / 100., 9.9));
        for (share, exact) in [(0.5, 5.), (0.95, 9.5), (0.99, 9.9), (0.001, 0.01)] {
            let told = score.quantile(share);
            assert!(told >= exact && told <= exact * 1.01, "{share}: {told}");
        }
        assert_eq!(score.missed, 10);
        assert!((score.mean_latency() - 5.005).abs() < 1e-9);
    }

    #[test]
    fn who_was_never_answered_waited_for_ever() {
        let mut score = Score { requests: 2, ..Score::default() };
        score.answer(1., 2.);
        score.give_up(1);
        assert_eq!((score.miss_share(), score.quantile(1.).is_finite()), (0.5, false));
        assert_eq!(score.mean_latency(), 1.);
        assert_eq!(Score::default().quantile(0.5), 0.);
    }

    #[test]
    fn to_beat_is_to_be_no_worse_in_either() {
        let score = |replica_seconds, missed| Score { replica_seconds, missed, ..Score::default() };
        assert!(score(1., 1).beats(&score(2., 1)) && score(1., 1).beats(&score(1., 2)));
        assert!(!score(1., 2).beats(&score(2., 1)) && !score(1., 1).beats(&score(1., 1)));
    }
}
