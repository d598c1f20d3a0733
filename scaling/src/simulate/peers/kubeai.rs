//! KubeAI: `internal/modelautoscaler/autoscaler.go` and `internal/modelclient/scale.go` of kubeai-project/kubeai.
//!
//! Every 10 s: `ceil(mean of the active requests / target)`, the mean of samples over ten minutes, of which those before the
//! first are zero. Down only after as many lower wishes in a row as fit into the scale-down delay. A request at zero
//! brings one pod at once.

use std::{collections::VecDeque, fmt};

use crate::simulate::{
    contender::{Contender, Sight},
    peers::signal::Signal,
};

const TICK: f64 = 10.;

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KubeAiSettings {
    /// `targetRequests`: active requests for each pod.
    pub target: f64,
    /// `modelAutoscaling.timeWindow`, in seconds.
    pub window: f64,
    /// `scaleDownDelaySeconds`.
    pub delay: f64,
}

impl Default for KubeAiSettings {
    fn default() -> Self {
        Self { target: 100., window: 600., delay: 30. }
    }
}

impl fmt::Display for KubeAiSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, window, delay } = self;
        write!(f, "target {target}, window {window} s, delay {delay} s")
    }
}

/// 84 settings.
pub(super) fn grid() -> Vec<KubeAiSettings> {
    let mut grid = Vec::new();
    for target in [2., 5., 10., 20., 50., 100., 200.] {
        for window in [30., 60., 180., 600.] {
            for delay in [30., 120., 600.] {
                grid.push(KubeAiSettings { target, window, delay });
            }
        }
    }
    grid
}

/// The autoscaler of one model.
#[derive(Clone, Debug)]
pub struct KubeAi {
    settings: KubeAiSettings,
    samples: VecDeque<f64>,
    lower: u32,
}

impl KubeAi {
    /// One that has seen nothing.
    pub fn new(settings: KubeAiSettings) -> Self {
        let samples = vec![0.; (settings.window / TICK).max(1.) as usize];
        Self { settings, samples: samples.into(), lower: 0 }
    }
}

impl Contender for KubeAi {
    fn period(&self) -> f64 {
        TICK
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        let current = sight.seen.pods.wanted;
        if sight.is_wake {
            return 1;
        }
        self.samples.pop_front();
        self.samples.push_back(Signal::ConcurrencyNow.read(sight));
        let mean = self.samples.iter().sum::<f64>() / self.samples.len() as f64;
        let wanted = (mean / self.settings.target).ceil() as u32;
        if wanted >= current {
            self.lower = 0;
            return wanted;
        }
        self.lower += 1;
        let enough = (self.settings.delay / TICK).ceil() as u32;
        if self.lower < enough { current } else { wanted }
    }

    fn learns(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::peers::fixture::Show;

    #[test]
    fn a_step_takes_minutes_to_be_seen() {
        let mut show = Show::new(KubeAi::new(KubeAiSettings::default()), 1);
        assert_eq!(show.pass_for(120., 500., 0.), 1);
        assert_eq!(show.pass_for(120., 500., 0.), 2);
        assert_eq!(show.pass_for(360., 500., 0.), 5);
    }

    #[test]
    fn it_shrinks_after_three_lower_wishes_and_wakes_at_once() {
        let mut show = Show::new(KubeAi::new(KubeAiSettings { window: 10., ..KubeAiSettings::default() }), 3);
        assert_eq!(
            [show.pass(300., 0.), show.pass(100., 0.), show.pass(100., 0.), show.pass(100., 0.)],
            [3, 3, 3, 1]
        );
        show.pass_for(30., 0., 0.);
        assert_eq!((show.pods, show.wake()), (0, 1));
    }
}
