//! Knative's pod autoscaler: `pkg/autoscaler/scaling/autoscaler.go` and `pkg/reconciler/autoscaling/kpa/scaler.go` of
//! knative/serving, with the defaults of its `config-autoscaler`.
//!
//! Every 2 s: `ceil(mean concurrency of the stable window / target)`, not below half of the ready pods, rounded down, and
//! not above a thousand times them. If the mean of the panic window, a tenth of the other, asks for at least twice the ready
//! pods, it panics: for a whole stable window after the last such moment the count never falls. To zero when a whole stable
//! window had no request, and 30 s more have passed. The activator pokes it at once for the first request at zero.

use std::fmt;

use crate::simulate::{
    contender::{Contender, Sight},
    peers::signal::{Signal, Stabiliser, Window},
};

const TICK: f64 = 2.;
const PANIC_WINDOW: f64 = 0.1;
const MAX_UP: f64 = 1000.;
const MAX_DOWN: f64 = 2.;
const GRACE: f64 = 30.;

/// What can be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KpaSettings {
    /// Concurrent requests of a pod: `container-concurrency-target-default` times `-percentage`.
    pub target: f64,
    /// `stable-window`, in seconds.
    pub stable: f64,
    /// `panic-threshold-percentage` / 100.
    pub panic: f64,
    /// `scale-down-delay`, in seconds.
    pub delay: f64,
}

impl Default for KpaSettings {
    fn default() -> Self {
        Self { target: 70., stable: 60., panic: 2., delay: 0. }
    }
}

impl fmt::Display for KpaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, stable, panic, delay } = self;
        write!(f, "target {target}, window {stable} s, panic at {}00 %, delay {delay} s", panic)
    }
}

/// 160 settings.
pub(super) fn grid() -> Vec<KpaSettings> {
    let mut grid = Vec::new();
    for target in [2., 4., 7., 14., 28., 70., 140., 280.] {
        for stable in [30., 60., 180., 600.] {
            for (panic, delay) in [(2., 0.), (2., 60.), (2., 300.), (10., 0.), (10., 120.)] {
                grid.push(KpaSettings { target, stable, panic, delay });
            }
        }
    }
    grid
}

/// The autoscaler of one revision.
#[derive(Clone, Debug)]
pub struct Kpa {
    settings: KpaSettings,
    stable: Window,
    short: Window,
    /// When it last had reason to, and the most pods it wanted since it began.
    panic: Option<(f64, u32)>,
    delay: Stabiliser,
    idle_since: Option<f64>,
}

impl Kpa {
    /// One that has seen nothing.
    pub fn new(settings: KpaSettings) -> Self {
        Self {
            settings,
            stable: Window::new(settings.stable),
            short: Window::new((settings.stable * PANIC_WINDOW).max(TICK)),
            panic: None,
            delay: Stabiliser::new(settings.delay),
            idle_since: None,
        }
    }

    fn panicking(&mut self, now: f64, ready: f64, stable: u32, short: u32) -> u32 {
        let has_reason = f64::from(short) / ready >= self.settings.panic;
        let most = stable.max(short);
        self.panic = match self.panic {
            None => has_reason.then_some((now, most)),
            Some((_, before)) if has_reason => Some((now, before.max(most))),
            Some((at, _)) if now - at > self.settings.stable => None,
            Some((at, before)) => Some((at, before.max(most))),
        };
        self.panic.map_or(stable, |(_, most)| most)
    }
}

impl Contender for Kpa {
    fn period(&self) -> f64 {
        TICK
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        let seen = sight.seen;
        let (now, over) =
            (seen.now.as_secs_f64(), seen.load.as_ref().map_or(0., |load| load.over.as_secs_f64()));
        let concurrency = Signal::Concurrency.read(sight);
        self.stable.push(concurrency, over);
        self.short.push(concurrency, over);
        if sight.is_wake {
            return 1;
        }
        if over == 0. {
            return seen.pods.wanted;
        }
        let ready = f64::from(seen.pods.ready.max(1));
        let within = |mean: f64| {
            let pods = (mean / self.settings.target).ceil();
            pods.clamp((ready / MAX_DOWN).floor(), (ready * MAX_UP).ceil()) as u32
        };
        let (stable, short) = (within(self.stable.mean()), within(self.short.mean()));
        let wanted = self.panicking(now, ready, stable, short);
        let wanted = self.delay.most(now, wanted);
        if wanted > 0 {
            self.idle_since = None;
            return wanted;
        }
        // Nothing for a whole window; the last pod stays for the grace.
        let idle = now - *self.idle_since.get_or_insert(now);
        if idle >= GRACE { 0 } else { seen.pods.wanted.min(1) }
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
    fn it_wants_the_mean_of_a_minute_by_the_target() {
        let mut show = Show::new(Kpa::new(KpaSettings { panic: 10., ..KpaSettings::default() }), 2);
        assert_eq!(show.pass_for(60., 140., 0.), 2);
        // Half a minute of 280 beside half of 140 are 210 on average: three times 70.
        assert_eq!(show.pass_for(30., 280., 0.), 3);
        assert_eq!(show.pass_for(30., 280., 0.), 4);
    }

    #[test]
    fn it_panics_at_twice_the_pods_and_never_falls_in_panic() {
        let mut show = Show::new(Kpa::new(KpaSettings::default()), 2);
        show.pass_for(60., 70., 0.);
        assert_eq!(show.pods, 1);
        // Two of the three looks of the panic window are full: 490 on average, which is seven times 70.
        assert_eq!([show.pass(700., 0.), show.pass(700., 0.)], [4, 7]);
        assert_eq!(show.pass_for(56., 0., 0.), 7, "it stays for a minute");
        assert!(show.pass_for(20., 0., 0.) < 7);
    }

    #[test]
    fn it_halves_at_most_and_goes_to_zero_after_a_minute_and_a_half() {
        let mut show = Show::new(Kpa::new(KpaSettings::default()), 8);
        assert_eq!((show.pass(0., 0.), show.pass(0., 0.), show.pass(0., 0.)), (4, 2, 1));
        assert_eq!(show.pass_for(60., 70., 0.), 1);
        assert_eq!(show.pass_for(88., 0., 0.), 1);
        assert_eq!(show.pass_for(4., 0., 0.), 0);
        assert_eq!(show.wake(), 1, "at once");
    }
}
