//! What happened in a run, measured or simulated.

use kembed_scaling::{
    Scaler, Settings,
    simulate::{Gateways, Ours, Trace, Watch, World},
};

/// A service's count at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// Seconds since the run began.
    pub at: f64,
    /// Pods, those that start among them.
    pub pods: u32,
    /// Pods that answer.
    pub ready: u32,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// When each request came that was answered, and after how many seconds.
    pub answers: Vec<(f64, f64)>,
    /// Requests that were not.
    pub failed: usize,
    /// Counts, each until the next.
    pub counts: Vec<Count>,
    /// When the count was changed, and why, where that is known.
    pub reasons: Vec<(f64, String)>,
}

impl Watch for Run {
    fn answer(&mut self, at: f64, seconds: f64) {
        self.answers.push((at - seconds, seconds));
    }

    fn count(&mut self, at: f64, pods: u32, ready: u32) {
        let count = Count { at, pods, ready };
        if self.counts.last().is_none_or(|last| (last.pods, last.ready) != (pods, ready)) {
            self.counts.push(count);
        }
    }
}

impl Run {
    /// Seconds of all pods together until `end`.
    pub fn replica_seconds(&self, end: f64) -> f64 {
        let ends = self.counts.iter().skip(1).map(|count| count.at).chain([end]);
        self.counts
            .iter()
            .zip(ends)
            .map(|(count, ends)| f64::from(count.pods) * (ends.min(end) - count.at))
            .sum()
    }

    /// Seconds that this share of all answers took at most.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(self.answers.iter().map(|(_, took)| *took), share).unwrap_or(f64::NAN)
    }

    /// Seconds that this share of the answers took at most of requests that came in `from..to`.
    pub fn quantile_in(&self, share: f64, from: f64, to: f64) -> Option<f64> {
        let came = self.answers.iter().filter(|(came, _)| (from..to).contains(came));
        quantile(came.map(|(_, took)| *took), share)
    }

    /// Answers that took longer than so many seconds, of all.
    pub fn late(&self, target: f64) -> f64 {
        let late = self.answers.iter().filter(|(_, took)| *took > target).count();
        late as f64 / self.answers.len().max(1) as f64
    }

    /// Requests that have come and are not answered at a moment.
    pub fn underway(&self, at: f64) -> usize {
        self.answers.iter().filter(|(came, took)| *came <= at && at < came + took).count()
    }

    /// Seconds from when a pod is asked for until it answers: the mean of all that came to answer.
    pub fn start(&self) -> Option<f64> {
        let (mut asked, mut took) = (Vec::new(), Vec::new());
        for pair in self.counts.windows(2) {
            let [before, now] = pair else { continue };
            (before.pods..now.pods).for_each(|_| asked.push(now.at));
            (before.ready..now.ready).for_each(|_| {
                if !asked.is_empty() {
                    took.push(now.at - asked.remove(0));
                }
            });
        }
        (!took.is_empty()).then(|| took.iter().sum::<f64>() / took.len() as f64)
    }

    /// Changes of the count of pods: when, and to what.
    pub fn changes(&self) -> Vec<(f64, u32)> {
        let mut changes: Vec<(f64, u32)> = Vec::new();
        for count in &self.counts {
            if changes.last().is_none_or(|(_, pods)| *pods != count.pods) {
                changes.push((count.at, count.pods));
            }
        }
        changes
    }
}

fn quantile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Plays a trace in simulated time, once for each of so many drawings of when gateways tell what came and when it is looked.
pub fn simulate(world: &World, trace: &Trace, settings: Settings, drawings: u64) -> Vec<Run> {
    let play = |seed| {
        let gateways = world.gateways.map(|gateways| Gateways { seed, ..gateways });
        let mut run = Run::default();
        World { gateways, ..world.clone() }.play(trace, &mut Ours(Scaler::new(settings)), &mut run);
        run
    };
    (1..=drawings).map(play).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let mut run = Run::default();
        for (at, pods, ready) in
            [(0., 0, 0), (10., 1, 0), (10.5, 1, 0), (12., 1, 1), (20., 3, 1), (24., 3, 3), (30., 1, 1)]
        {
            run.count(at, pods, ready);
        }
        run.answer(12., 2.);
        run.answer(12.5, 0.5);
        run
    }

    #[test]
    fn counts_hold_until_the_next() {
        let run = run();
        assert_eq!(run.counts.len(), 6, "what does not change is not told");
        assert_eq!(run.replica_seconds(40.), 10. + 30. + 10.);
        assert_eq!(run.changes(), [(0., 0), (10., 1), (20., 3), (30., 1)]);
    }

    #[test]
    fn a_start_is_from_asking_to_answering() {
        assert_eq!(run().start(), Some((2. + 4. + 4.) / 3.));
        assert_eq!(Run::default().start(), None);
    }

    #[test]
    fn requests_are_underway_until_they_are_answered() {
        let run = run();
        assert_eq!(
            (run.underway(9.), run.underway(11.), run.underway(12.2), run.underway(13.)),
            (0, 1, 1, 0)
        );
        assert_eq!((run.quantile(0.5), run.quantile(1.), run.late(1.)), (0.5, 2., 0.5));
        assert_eq!(run.quantile_in(0.95, 50., 60.), None);
    }
}
