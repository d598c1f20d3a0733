//! What the gateways have told of a service, as a policy reads it. Pure.

use std::time::Duration;

use kembed_queue::{
    histogram,
    report::{Counts, Level},
};
use kembed_scaling::Load;

/// What was counted in a stretch of time, and what is there at its end. `wanted`: somebody waits though there is no pod.
pub fn load(counts: &Counts, level: &Level, over: Duration, wanted: bool) -> Load {
    let mean = |time: u64, now: u64| if over.is_zero() { now as f64 } else { time as f64 / micros(over) };
    Load {
        over,
        arrived: counts.arrived as f64,
        arrived_tokens: counts.arrived_tokens as f64,
        arrived_squares: counts.arrived_squares as f64,
        answered_tokens: counts.answered_tokens as f64,
        waiting: mean(counts.waiting_time.total(), level.waiting.total()),
        in_hand: mean(counts.in_hand_time.total(), level.in_hand.total()),
        requests: level.waiting.total().saturating_add(level.in_hand.total()) as f64,
        waiting_tokens: level.waiting_tokens.total() as f64,
        in_hand_tokens: level.in_hand_tokens.total() as f64,
        latencies: counts.latencies.interactive,
        wanted,
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// How long a lowest answer time is remembered at least, and half of how long at most.
const HALF: Duration = Duration::from_secs(1800);

/// Answers that must have been measured before the shortest of them says anything.
const ENOUGH: u64 = 20;

/// The wait for a pod that is none, for each request: what it takes to find out that a pod is free.
const NO_WAIT: Duration = Duration::from_millis(1);

/// The shortest time that an answer took of late. A request that had waited for a pod does not count: more pods would have
/// shortened that.
#[derive(Debug, Default)]
pub struct Floor {
    /// How long nobody has waited.
    quiet: Duration,
    /// For how long `now` was filled.
    age: Duration,
    now: Lowest,
    before: Lowest,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lowest {
    bucket: Option<usize>,
    answers: u64,
}

impl Floor {
    /// Takes in what was counted in a stretch of time.
    pub fn learn(&mut self, counts: &Counts, over: Duration) {
        self.age += over;
        if self.age >= HALF {
            (self.before, self.now, self.age) = (self.now, Lowest::default(), Duration::ZERO);
        }
        let no_wait = NO_WAIT.as_micros() as u64 * counts.arrived;
        self.quiet = if counts.waiting_time.total() > no_wait { Duration::ZERO } else { self.quiet + over };
        let mut answers = counts.latencies.interactive.counts().iter().enumerate();
        let came_since = |bucket| histogram::bound(bucket).is_some_and(|took| took <= self.quiet);
        while let Some((bucket, &count)) = answers.next().filter(|&(bucket, _)| came_since(bucket)) {
            if count > 0 {
                self.now.answers = self.now.answers.saturating_add(count);
                self.now.bucket = Some(self.now.bucket.map_or(bucket, |lowest| lowest.min(bucket)));
            }
        }
    }

    /// No answer came in less time; `None` until that is known.
    pub fn known(&self) -> Option<Duration> {
        let answers = self.now.answers.saturating_add(self.before.answers);
        let bucket = [self.now.bucket, self.before.bucket].into_iter().flatten().min()?;
        // The shortest that falls into the bucket.
        let shortest = bucket.checked_sub(1).and_then(histogram::bound).unwrap_or_default();
        (answers >= ENOUGH).then_some(shortest)
    }
}

/// Tokens a second of one pod, from those of several.
pub fn rate(told: impl Iterator<Item = u64>) -> Option<f64> {
    let (sum, pods) =
        told.filter(|&rate| rate > 0).fold((0., 0), |(sum, pods), rate| (sum + rate as f64, pods + 1));
    (pods > 0).then(|| sum / f64::from(pods))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn answered(times: u64, took: Duration) -> Counts {
        let mut counts = Counts { arrived: times, answered: times, ..Counts::default() };
        (0..times).for_each(|_| counts.latencies.interactive.observe(took));
        counts
    }

    #[test]
    fn integrals_become_means() {
        let mut counts = Counts::default();
        (counts.waiting_time.interactive, counts.waiting_time.bulk) = (3_000_000, 1_000_000);
        counts.in_hand_time.bulk = 1_000_000;
        let mut level = Level::default();
        (level.waiting.bulk, level.waiting_tokens.bulk, level.in_hand.interactive) = (7, 70, 2);
        let load = load(&counts, &level, 2 * S, false);
        assert_eq!((load.waiting, load.in_hand, load.waiting_tokens), (2., 0.5, 70.));
        assert_eq!(load.requests, 9.);
        let at_first = super::load(&Counts::default(), &level, Duration::ZERO, true);
        assert_eq!((at_first.waiting, at_first.wanted), (7., true));
    }

    #[test]
    fn the_shortest_answer_is_known_when_there_were_some() {
        let mut floor = Floor::default();
        floor.learn(&answered(ENOUGH - 1, 300 * S / 1000), S);
        assert_eq!(floor.known(), None);
        floor.learn(&answered(1, 50 * S / 1000), S);
        // In the bucket from 48 to 56 ms.
        assert_eq!(floor.known(), Some(Duration::from_millis(48)));
        for _ in 0..2 {
            floor.learn(&answered(ENOUGH, 300 * S / 1000), HALF);
        }
        assert_eq!(floor.known(), Some(Duration::from_millis(256)), "that was more than half an hour ago");
    }

    /// Requests that waited for the first pod to start say nothing of how long a request takes.
    #[test]
    fn who_waited_for_a_pod_does_not_count() {
        let mut floor = Floor::default();
        let mut waiting = Counts::default();
        waiting.waiting_time.interactive = 1_000_000;
        floor.learn(&waiting, S);
        // They were given to the pod in the last second, and are answered in this one.
        floor.learn(&answered(100, 90 * S), S);
        assert_eq!(floor.known(), None);
        floor.learn(&answered(100, S / 10), S);
        assert_eq!(floor.known(), Some(Duration::from_millis(96)));
    }

    #[test]
    fn the_rate_of_a_pod_is_the_mean_of_those_that_were_measured() {
        assert_eq!(rate([100, 0, 300].into_iter()), Some(200.));
        assert_eq!(rate(std::iter::empty()), None);
    }
}
