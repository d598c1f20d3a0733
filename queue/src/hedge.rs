//! When a request is worth giving to a second pod: later than nearly all are answered, and for few of them.

use std::time::Duration;

/// Answers that must be known before any is late. Of fewer the slowest one decides.
const ENOUGH: u32 = 200;

/// Answers after which older ones begin to be forgotten.
const MEMORY: u32 = 2000;

/// Of so many answers all but one come before the time that is late.
const ONE_OF: u32 = 100;

/// Steps from one time to twice that.
const STEPS: f64 = 8.;

/// Up to 2^32 microseconds, more than an hour.
const BUCKETS: usize = 32 * STEPS as usize;

/// Hedges that can be saved up: a burst of slow answers must not have all of a service's pods do everything twice.
const MOST: f64 = 10.;

/// How long the pods of a service take, and how often more may be asked of them.
#[derive(Clone, Debug)]
pub struct Hedges {
    /// Hedges for each request that comes.
    share: f64,
    saved: f64,
    recent: Times,
    before: Times,
}

/// Times by their logarithm, so that what is read back is at most a tenth too long.
#[derive(Clone, Debug)]
struct Times {
    counts: Vec<u32>,
    sum: u32,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum: 0 }
    }
}

impl Hedges {
    /// For so many of 100 requests. Nothing is known yet.
    pub fn new(percent: u32) -> Self {
        Self { share: share(percent), saved: 0., recent: Times::default(), before: Times::default() }
    }

    /// For so many of 100 requests from now on.
    pub fn set_percent(&mut self, percent: u32) {
        self.share = share(percent);
    }

    /// A request came that may be worth it.
    pub fn earn(&mut self) {
        self.saved = (self.saved + self.share).min(MOST);
    }

    /// A pod took so long.
    pub fn observe(&mut self, time: Duration) {
        if self.recent.sum >= MEMORY {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.add(time);
    }

    /// What takes longer than this is late: 99 of 100 were answered by then. `None` while too little is known.
    pub fn late(&self) -> Option<Duration> {
        let sum = self.recent.sum + self.before.sum;
        if sum < ENOUGH {
            return None;
        }
        let mut later = sum / ONE_OF;
        let counts = self.recent.counts.iter().zip(&self.before.counts).map(|(a, b)| a + b);
        let slowest = counts.enumerate().rev().find(|(_, count)| {
            let is_it = *count > later;
            later = later.saturating_sub(*count);
            is_it
        });
        slowest.map(|(bucket, _)| end(bucket))
    }

    /// Takes one hedge, if there is one.
    pub fn take(&mut self) -> bool {
        let may = self.saved >= 1.;
        if may {
            self.saved -= 1.;
        }
        may
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        let microseconds = (time.as_secs_f64() * 1e6).max(1.);
        let bucket = ((microseconds.log2() * STEPS) as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.sum += 1;
    }
}

/// The longest time in a bucket.
fn end(bucket: usize) -> Duration {
    Duration::from_secs_f64(((bucket + 1) as f64 / STEPS).exp2() / 1e6)
}

fn share(percent: u32) -> f64 {
    f64::from(percent.min(100)) / 100.
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Hedges {
        let mut hedges = Hedges::new(5);
        times.into_iter().for_each(|us| hedges.observe(Duration::from_micros(us)));
        hedges
    }

    proptest! {
        #[test]
        fn one_of_a_hundred_is_late(mut times in proptest::collection::vec(1u64..100_000_000, 200..1500)) {
            let late = of(times.iter().copied()).late().expect("enough are known").as_secs_f64() * 1e6;
            times.sort_unstable();
            let exact = times[times.len() - 1 - times.len() / 100] as f64;
            prop_assert!((exact..exact * 1.1).contains(&late), "{late} for {exact}");
        }

        #[test]
        fn hedges_stay_within_their_share(
            percent in 0u32..30,
            steps in proptest::collection::vec((0usize..30, 0usize..4), 0..300),
        ) {
            let mut hedges = Hedges::new(percent);
            let (mut came, mut taken) = (0, 0);
            for (arrivals, tries) in steps {
                (0..arrivals).for_each(|_| hedges.earn());
                came += arrivals;
                taken += (0..tries).filter(|_| hedges.take()).count();
                prop_assert!(taken as f64 <= came as f64 * f64::from(percent) / 100. + 1e-6, "{taken} of {came}");
            }
        }
    }

    #[test]
    fn of_few_nothing_is_known() {
        assert_eq!(of((0..199).map(|_| 1000)).late(), None);
        assert!(of((0..200).map(|_| 1000)).late().is_some());
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let slow = (0..MEMORY).map(|_| 1_000_000);
        let late =
            |fast: u32| of(slow.clone().chain((0..fast).map(|_| 1000))).late().expect("enough are known");
        assert!(late(MEMORY) > Duration::from_millis(900));
        assert!(late(MEMORY + 1) < Duration::from_millis(2), "twice as many came since");
    }

    #[test]
    fn the_longest_time_has_a_bucket_too() {
        let late = of((0..200).map(|_| u64::MAX)).late().expect("enough are known");
        assert!(late > Duration::from_secs(3600));
    }
}
