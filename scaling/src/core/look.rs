//! One look, with nothing in it but sane numbers.

use std::time::Duration;

use kembed_queue::histogram;

use super::recent;
use crate::{
    observation::{Load, Observation, Pods, Speed},
    policy::Objective,
};

/// The longest that anything of a pod is believed to take, in seconds: an hour.
const LONGEST: f64 = 3600.;

/// The largest count of anything that is believed: sums of squares of such numbers are finite.
const LARGEST: f64 = 1e15;

/// Seconds of a pod that one request is taken for at most: as long as the longest window, in which no pod does more of it.
const LONG: f64 = recent::LONGEST;

/// A load that is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// Seconds that it was counted over.
    pub over: f64,
    /// Requests that came.
    pub arrived: f64,
    /// Their tokens, without what no pod can do of one of them in [`LONG`] seconds.
    pub tokens: f64,
    /// The sum of the squares of their tokens.
    pub squares: f64,
    /// Requests that waited, on average.
    pub waiting: f64,
    /// Requests that pods had, on average.
    pub in_hand: f64,
    /// Requests that are there at its end.
    pub requests: f64,
    /// Tokens that wait.
    pub waiting_tokens: f64,
    /// Interactive requests that were answered, and those of them that took longer than the target.
    pub counted: f64,
    /// See `counted`.
    pub late: f64,
    /// Somebody waits at zero.
    pub wanted: bool,
}

impl Known {
    /// What of a look can be used: `None` if the load is not known, or is none that can be.
    pub fn of(seen: &Observation, objective: Option<Objective>) -> Option<Self> {
        let load = seen.load.as_ref()?;
        let numbers = [
            load.arrived,
            load.arrived_tokens,
            load.arrived_squares,
            load.waiting,
            load.in_hand,
            load.requests,
            load.waiting_tokens,
        ];
        if !numbers.iter().all(|number| number.is_finite() && *number >= 0.) {
            return None;
        }
        let [arrived, tokens, squares, waiting, in_hand, requests, waiting_tokens] =
            numbers.map(|number| number.min(LARGEST));
        let (counted, late) = objective.map_or((0., 0.), |objective| late(load, objective.target));
        let wanted = load.wanted;
        let over = load.over.as_secs_f64();
        let (tokens, squares) = match Measured::from(&seen.speed).rate {
            Some(rate) => of_one_pod(tokens, squares, rate * LONG),
            None => (tokens, squares),
        };
        Some(Self {
            over,
            arrived,
            tokens,
            squares,
            waiting,
            in_hand,
            requests,
            waiting_tokens,
            counted,
            late,
            wanted,
        })
    }

    /// Nothing came, and nothing is there.
    pub fn is_quiet(&self) -> bool {
        self.arrived == 0. && self.waiting == 0. && self.in_hand == 0. && !self.waits()
    }

    /// Somebody waits at its end.
    pub fn waits(&self) -> bool {
        self.waiting_tokens > 0. || self.wanted
    }
}

/// The tokens of some requests and the sum of their squares, if each has `most` at most: a request is on one pod, and what one
/// pod cannot do, no other one helps with. What is left out is what is too much for certain, by these sums alone: where no
/// request is so large it is nothing, and where one is it is all.
fn of_one_pod(tokens: f64, squares: f64, most: f64) -> (f64, f64) {
    // Of sizes s: sum s (s - most) <= largest x sum (s - most)+, and the largest is no larger than the root of sum s².
    let sum = squares.min(tokens * tokens);
    let surplus = if sum > tokens * most { (sum - tokens * most) / sum.sqrt() } else { 0. };
    let tokens = tokens - surplus;
    (tokens, squares.min(tokens * most))
}

/// How many of the interactive requests were counted, and how many took longer than `target`. Of the bucket that the target
/// is in, the part that is above it.
fn late(load: &Load, target: Duration) -> (f64, f64) {
    let (mut all, mut late) = (0., 0.);
    let target = target.as_secs_f64();
    let end = |bucket| histogram::bound(bucket).map_or(f64::INFINITY, |bound| bound.as_secs_f64());
    for (bucket, &count) in load.latencies.counts().iter().enumerate().filter(|(_, count)| **count > 0) {
        let (from, to) = (bucket.checked_sub(1).map_or(0., end), end(bucket));
        all += count as f64;
        let above = if to.is_infinite() { 1. } else { ((to - target) / (to - from)).clamp(0., 1.) };
        late += count as f64 * above;
    }
    (all, late)
}

/// Starts, of the usual length, in which a pod must answer to be known to come.
const LATE: f64 = 3.;

/// Seconds that no start is taken to be shorter than when it is late: looks are a second apart.
const SHORT: f64 = 2.;

/// The pods of a look, as supply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Supply {
    /// The count that was asked for last.
    pub wanted: u32,
    /// Pods that answer, of those that are wanted.
    pub ready: u32,
    /// Pods that will.
    pub coming: u32,
    /// Pods that should, but were asked for too long ago.
    pub overdue: u32,
    /// Seconds that those who come will have served together by the time a pod that is asked for now could begin to.
    pub head_start: f64,
    /// One of those that will answer should have long since, by what pods take to start.
    pub late: bool,
}

impl Supply {
    /// Pods that do not answer `deadline` seconds after they were asked for are none to count on.
    pub fn of(pods: &Pods, start: f64, deadline: f64) -> Self {
        let ready = pods.ready.min(pods.wanted);
        // Those that are to go do not come.
        let room = (pods.wanted - ready) as usize;
        let ages = || pods.starting.iter().map(Duration::as_secs_f64);
        let overdue = ages().filter(|age| *age >= deadline).count().min(room);
        let coming = room - overdue;
        let young = ages().filter(|age| *age < deadline).take(coming);
        let late = young.clone().any(|age| age > LATE * start.max(SHORT));
        let head_start = young.map(|age| age.min(start)).sum();
        Self { wanted: pods.wanted, ready, coming: coming as u32, overdue: overdue as u32, head_start, late }
    }
}

/// What was measured of a pod and can be believed, in tokens a second and seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Tokens a second.
    pub rate: Option<f64>,
    /// Seconds from when it is asked for.
    pub start: Option<f64>,
    /// Seconds for one request alone.
    pub floor: Option<f64>,
}

impl From<&Speed> for Measured {
    fn from(speed: &Speed) -> Self {
        Self {
            rate: speed
                .rate
                .filter(|rate| rate.is_finite() && *rate > 0.)
                .map(|rate| rate.clamp(1e-6, LARGEST)),
            start: speed.start.map(|start| start.as_secs_f64().min(LONGEST)),
            floor: speed.floor.map(|floor| floor.as_secs_f64().min(LONGEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(load: Load) -> Observation {
        let (pods, speed) = (Pods::default(), Speed::default());
        Observation { now: Duration::ZERO, load: Some(load), pods, speed }
    }

    #[test]
    fn what_is_no_number_is_not_known() {
        for bad in [f64::NAN, f64::INFINITY, -1.] {
            assert!(Known::of(&seen(Load { arrived: bad, ..Load::default() }), None).is_none());
            let speed = Speed { rate: Some(bad), ..Speed::default() };
            assert_eq!(Measured::from(&speed).rate, None);
        }
        assert!(Known::of(&Observation { load: None, ..seen(Load::default()) }, None).is_none());
        assert!(Known::of(&seen(Load::default()), None).is_some_and(|known| known.is_quiet()));
    }

    proptest! {
        #[test]
        fn of_each_request_no_more_counts_than_one_pod_can_do(
            sizes in proptest::collection::vec(1.0..1e6, 0..20), most in 1.0..1e6
        ) {
            let (tokens, squares) = (sizes.iter().sum::<f64>(), sizes.iter().map(|size| size * size).sum());
            let (kept, kept_squares) = of_one_pod(tokens, squares, most);
            let exact: f64 = sizes.iter().map(|size| size.min(most)).sum();
            prop_assert!(kept >= exact * (1. - 1e-9) && kept <= tokens, "{kept}, not {exact}");
            prop_assert!(kept_squares <= kept * most);
            let is_one_too_large = sizes.iter().any(|size| *size > most);
            prop_assert_eq!(is_one_too_large || (kept, kept_squares) == (tokens, squares), true);
            prop_assert!(sizes.len() != 1 || kept <= exact * (1. + 1e-9), "all that is too much of one alone");
        }
    }

    #[test]
    fn of_a_bucket_that_the_target_is_in_a_part_is_late() {
        let mut load = Load::default();
        for ms in [1, 190, 210, 500, 10_000_000] {
            load.latencies.observe(Duration::from_millis(ms));
        }
        let objective = Objective { share: 0.95, target: Duration::from_millis(200) };
        let known = Known::of(&seen(load), Some(objective)).expect("it is known");
        // 190 and 210 ms are in one bucket, from 192 to 224 ms, but for 190.
        assert_eq!(known.counted, 5.);
        assert!((known.late - 2.75).abs() < 0.01, "{}", known.late);
    }

    #[test]
    fn who_is_to_go_does_not_come_and_who_does_not_come_is_none_to_count_on() {
        let secs = Duration::from_secs;
        let pods =
            Pods { wanted: 4, ready: 1, starting: vec![secs(700), secs(5), secs(2)], ..Pods::default() };
        let supply = Supply::of(&pods, 10., 600.);
        assert_eq!((supply.ready, supply.coming, supply.overdue), (1, 2, 1));
        assert_eq!(supply.head_start, 7.);
        let supply = Supply::of(&Pods { wanted: 1, ready: 3, ..pods }, 10., 600.);
        assert_eq!((supply.ready, supply.coming, supply.overdue), (1, 0, 0));
    }

    #[test]
    fn who_comes_is_late_after_three_times_what_pods_take() {
        let late = |age: f64, start: f64| {
            let starting = vec![Duration::from_secs_f64(age), Duration::from_secs(1)];
            Supply::of(&Pods { wanted: 3, ready: 1, starting, ..Pods::default() }, start, 600.).late
        };
        assert!(!late(29., 10.) && late(31., 10.));
        assert!(!late(5.9, 0.1) && late(6.1, 0.1), "looks are a second apart");
        assert!(!late(601., 10.), "nobody waits for that one any more");
    }
}
