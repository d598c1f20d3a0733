//! What is noted of a play beside its score.

use kembed_scaling::simulate::Watch;

/// Seconds after which a steady service should have settled.
const SETTLED: f64 = 600.;

/// When the step of the generated trace comes, in seconds.
const STEP: f64 = 1200.;

/// The share of the requests of one second that may be late while the objective is met.
const LATE: f64 = 0.05;

/// Changes of the count, and requests of each second that were late.
#[derive(Clone, Debug)]
pub struct Notes {
    target: f64,
    pods: u32,
    /// Changes of the count after the first minutes.
    pub late_changes: u32,
    /// There was a time without a pod.
    pub slept: bool,
    /// Requests that came in each second of the two minutes after the step, and how many of them were late.
    seconds: [(u32, u32); 120],
}

impl Notes {
    /// Nothing was seen yet; a request that takes longer than the target is late.
    pub fn new(target: f64) -> Self {
        Self { target, pods: 0, late_changes: 0, slept: false, seconds: [(0, 0); 120] }
    }

    /// Seconds after the step from which on the objective was met in every second of two minutes.
    pub fn recovery(&self) -> usize {
        let is_missed = |(came, late): &(u32, u32)| f64::from(*late) > LATE * f64::from(*came);
        self.seconds.iter().rposition(is_missed).map_or(0, |last| last + 1)
    }
}

impl Watch for Notes {
    fn answer(&mut self, at: f64, seconds: f64) {
        let second = at - seconds - STEP;
        if let Some((came, late)) = self.seconds.get_mut(second.max(0.) as usize).filter(|_| second >= 0.) {
            *came += 1;
            *late += u32::from(seconds > self.target);
        }
    }

    fn count(&mut self, at: f64, pods: u32, _: u32) {
        if pods != self.pods && (SETTLED..3600.).contains(&at) {
            self.late_changes += 1;
        }
        self.slept |= pods == 0;
        self.pods = pods;
    }
}
