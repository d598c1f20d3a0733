//! The Horizontal Pod Autoscaler of Kubernetes: `pkg/controller/podautoscaler/{horizontal,replica_calculator}.go`.
//!
//! Every 15 s: `ceil(ready x current / target)` unless that ratio is within a tenth of 1; up by at most the larger of 4 pods
//! and 100 % in 15 s; down to the most that was wanted in the last 300 s. Pods that do not answer yet count as using nothing,
//! so that they are supply. Never to zero.

use std::fmt;

use crate::simulate::{
    contender::{Contender, Sight},
    peers::signal::{Signal, Stabiliser},
};

/// Seconds between looks (`--horizontal-pod-autoscaler-sync-period`).
pub(super) const TICK: f64 = 15.;
const TOLERANCE: f64 = 0.1;

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HpaSettings {
    /// What is measured.
    pub signal: Signal,
    /// How much of it there should be for each pod.
    pub target: f64,
    /// `behavior.scaleDown.stabilizationWindowSeconds`.
    pub stabilisation: f64,
    /// `behavior.scaleUp.policies` without bounds.
    pub is_fast: bool,
}

impl HpaSettings {
    /// A share of time that pods are busy, and the defaults else.
    pub fn utilisation(target: f64) -> Self {
        Self { signal: Signal::Busy, target, stabilisation: 300., is_fast: false }
    }

    /// Waiting requests for each pod, and the defaults else.
    pub fn queue(target: f64) -> Self {
        Self { signal: Signal::Waiting, ..Self::utilisation(target) }
    }
}

impl fmt::Display for HpaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signal, target, stabilisation, is_fast } = self;
        let up = if *is_fast { "up unbounded" } else { "up 4 or 100 %" };
        write!(f, "{} {target}, down after {stabilisation} s, {up}", signal.name())
    }
}

/// 72 settings.
pub(super) fn utilisation_grid() -> Vec<HpaSettings> {
    let mut grid = Vec::new();
    for target in [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95] {
        for stabilisation in [0., 60., 300., 900.] {
            for is_fast in [false, true] {
                grid.push(HpaSettings { stabilisation, is_fast, ..HpaSettings::utilisation(target) });
            }
        }
    }
    grid
}

/// 112 settings.
pub(super) fn queue_grid() -> Vec<HpaSettings> {
    let mut grid = Vec::new();
    for signal in [Signal::Waiting, Signal::Concurrency] {
        for target in [1., 2., 4., 8., 16., 32., 64.] {
            for stabilisation in [0., 60., 300., 900.] {
                for is_fast in [false, true] {
                    grid.push(HpaSettings { signal, target, stabilisation, is_fast });
                }
            }
        }
    }
    grid
}

/// The autoscaler of one Deployment.
#[derive(Clone, Debug)]
pub struct Hpa {
    settings: HpaSettings,
    down: Stabiliser,
}

impl Hpa {
    /// One that has seen nothing.
    pub fn new(settings: HpaSettings) -> Self {
        Self { settings, down: Stabiliser::new(settings.stabilisation) }
    }

    /// What it wants when it reads so much in all.
    pub(super) fn want(&mut self, now: f64, total: f64, ready: u32, current: u32) -> u32 {
        let pods = total / self.settings.target;
        let ratio = pods / f64::from(ready.max(1));
        let wanted = match ratio {
            _ if (ratio - 1.).abs() <= TOLERANCE => current,
            // Those that start bring the ratio down, but never the count.
            _ if ratio > 1. => (pods.ceil() as u32).max(current),
            _ => pods.ceil() as u32,
        };
        let wanted = wanted.max(1);
        let most = self.down.most(now, wanted);
        let up = if self.settings.is_fast { u32::MAX } else { (current + 4).max(current * 2) };
        if wanted > current { wanted.min(up) } else { most.min(current) }
    }
}

impl Contender for Hpa {
    fn period(&self) -> f64 {
        TICK
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        let pods = &sight.seen.pods;
        if sight.seen.load.as_ref().is_none_or(|load| load.over.is_zero()) {
            return pods.wanted.max(1);
        }
        let total = self.settings.signal.read(sight);
        self.want(sight.seen.now.as_secs_f64(), total, pods.ready, pods.wanted.max(1))
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
    fn it_wants_the_total_by_the_target_unless_it_is_near() {
        let mut show =
            Show::new(Hpa::new(HpaSettings { stabilisation: 0., ..HpaSettings::utilisation(0.8) }), 4);
        // 3.5 of 4 pods busy are 0.875, which is within a tenth of 0.8.
        assert_eq!(show.pass(0., 3.5), 4);
        assert_eq!(show.pass(0., 3.8), 5);
        assert_eq!(show.pass(0., 1.5), 2);
        assert_eq!(show.pass(0., 0.), 1, "never to zero");
    }

    #[test]
    fn it_grows_by_four_or_to_twice_as_many() {
        let grown = |is_fast| {
            let mut show = Show::new(Hpa::new(HpaSettings { is_fast, ..HpaSettings::queue(1.) }), 1);
            [show.pass(100., 0.), show.pass(100., 0.), show.pass(100., 0.)]
        };
        assert_eq!(grown(false), [5, 10, 20]);
        assert_eq!(grown(true), [100, 100, 100]);
    }

    #[test]
    fn it_shrinks_to_the_most_of_five_minutes() {
        let mut show = Show::new(Hpa::new(HpaSettings::queue(16.)), 1);
        show.pass(64., 0.);
        assert_eq!(show.pods, 4);
        assert_eq!(show.pass_for(300., 0., 0.), 4);
        assert_eq!(show.pass(0., 0.), 1);
    }
}
