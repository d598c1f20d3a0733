//! KEDA: `pkg/scaling/executor/scale_scaledobjects.go` and `pkg/scaling/scale_handler.go` of kedacore/keda.
//!
//! Every 30 s it samples its metric: above zero it is active, and a count of zero becomes one; when it was not active for the
//! cool-down of 300 s, the count becomes zero. From one up an HPA decides, which reads the same metric as an average for each pod.
//! Nothing tells it that somebody waits before it samples again.

use std::fmt;

use crate::simulate::{
    contender::{Contender, Sight},
    peers::{
        hpa::{self, Hpa, HpaSettings},
        signal::Signal,
    },
};

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KedaSettings {
    /// Of the HPA that it makes.
    pub hpa: HpaSettings,
    /// `pollingInterval`, in seconds: a multiple of the HPA's 15.
    pub poll: f64,
    /// `cooldownPeriod`, in seconds.
    pub cooldown: f64,
}

impl Default for KedaSettings {
    fn default() -> Self {
        Self {
            hpa: HpaSettings { signal: Signal::WaitingNow, ..HpaSettings::queue(16.) },
            poll: 30.,
            cooldown: 300.,
        }
    }
}

impl fmt::Display for KedaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, poll {} s, cool-down {} s", self.hpa, self.poll, self.cooldown)
    }
}

/// 96 settings.
pub(super) fn grid() -> Vec<KedaSettings> {
    let mut grid = Vec::new();
    for signal in [Signal::WaitingNow, Signal::ConcurrencyNow] {
        for target in [2., 4., 8., 16., 32., 100.] {
            for stabilisation in [0., 60., 300., 900.] {
                for (poll, cooldown) in [(30., 300.), (15., 60.)] {
                    let hpa = HpaSettings { signal, target, stabilisation, is_fast: false };
                    grid.push(KedaSettings { hpa, poll, cooldown });
                }
            }
        }
    }
    grid
}

/// The autoscaler of one ScaledObject.
#[derive(Clone, Debug)]
pub struct Keda {
    settings: KedaSettings,
    hpa: Hpa,
    looks: u64,
    active_at: f64,
}

impl Keda {
    /// One that has seen nothing.
    pub fn new(settings: KedaSettings) -> Self {
        Self { settings, hpa: Hpa::new(settings.hpa), looks: 0, active_at: 0. }
    }
}

impl Contender for Keda {
    fn period(&self) -> f64 {
        hpa::TICK
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        let pods = &sight.seen.pods;
        if sight.is_wake {
            return pods.wanted;
        }
        let now = sight.seen.now.as_secs_f64();
        let total = self.settings.hpa.signal.read(sight);
        let polls = self.looks.is_multiple_of((self.settings.poll / hpa::TICK).max(1.) as u64);
        self.looks += 1;
        if polls && total > 0. {
            self.active_at = now;
        }
        if polls && total == 0. && now - self.active_at >= self.settings.cooldown {
            return 0;
        }
        match pods.wanted {
            0 => u32::from(polls && total > 0.),
            current if now == 0. => current,
            current => self.hpa.want(now, total, pods.ready, current),
        }
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
    fn it_goes_to_zero_after_the_cool_down_and_comes_back_when_it_polls() {
        let mut show = Show::new(Keda::new(KedaSettings::default()), 1);
        assert_eq!(show.pass_for(285., 0., 0.), 1);
        assert_eq!(show.pass(0., 0.), 0);
        assert_eq!(show.wake(), 0, "nobody tells it");
        assert_eq!(show.pass(3., 0.), 0, "it polls every other time");
        assert_eq!(show.pass(3., 0.), 1);
    }

    #[test]
    fn from_one_up_an_hpa_decides() {
        let mut show = Show::new(Keda::new(KedaSettings::default()), 1);
        assert_eq!([show.pass(48., 0.), show.pass(48., 0.)], [3, 3]);
        assert_eq!(show.pass_for(285., 0., 0.), 3, "it waits for five minutes");
        assert_eq!(show.pass(0., 0.), 0, "it was not active for all of them");
    }
}
