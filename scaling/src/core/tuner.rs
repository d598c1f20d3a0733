//! Looks for better knobs in the last hour.

use std::fmt;

use super::{
    knobs::{Expect, Knobs},
    replay::{Outcome, Past},
};

/// Fewer seconds than this say nothing of what the next will be like.
const ENOUGH: usize = 900;

/// What a late request costs, in requests that are served by an ideal number of pods, if [`ALLOWED`] may be late. It costs
/// the more the fewer may.
const WEIGHT: f64 = 8.;

/// See [`WEIGHT`].
const ALLOWED: f64 = 0.05;

/// The part of the cost that a change must save: who changes for less follows chance.
const GAIN: f64 = 0.05;

/// The part of the cost by which a part of the past must differ to count.
const LEAST: f64 = 0.002;

/// Another setting, and what it would have saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// How it was.
    pub from: Knobs,
    /// How it is now.
    pub to: Knobs,
    /// The part of the last hour's cost that this would have saved.
    pub gain: f64,
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, gain } = self;
        write!(f, "{to} instead of {from}: {:.0} % less cost over the last hour", gain * 100.)
    }
}

/// Where the search is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tuner {
    /// How many candidates were tried.
    tried: usize,
    /// By how much more a late request costs than usual, as the logarithm to base 2.
    strict: f64,
}

impl Tuner {
    /// The best of the settings near to `knobs`, if it is clearly better. No more than `budget` seconds are lived through, all
    /// together; what is not tried now is tried the next time. `allowed` is the share of requests that may be late.
    pub fn search(&mut self, past: &Past, knobs: &Knobs, allowed: f64, budget: u32) -> Option<Tuning> {
        let lives = budget as usize / past.len().max(1);
        if past.len() < ENOUGH || lives < 2 {
            return None;
        }
        let now = past.live(knobs);
        // More late than allowed makes it dearer to be late, until it is kept.
        let wish = if now.late() > allowed { 0.25 } else { -0.25 };
        self.strict = (self.strict + wish).clamp(0., 3.);
        let weight = WEIGHT * ALLOWED / allowed.clamp(0.005, 0.5) * self.strict.exp2();
        let candidates = near(knobs, past.most());
        let tries = candidates.len().min(lives - 1);
        let turn = (0..tries).map(|place| candidates[(self.tried + place) % candidates.len()]);
        let lived = turn.map(|candidate| (candidate, past.live(&candidate)));
        let gains = lived.filter(|(_, then)| is_better_mostly(then, &now, weight));
        let gains = gains.map(|(candidate, then)| (candidate, 1. - then.cost(weight) / now.cost(weight)));
        let best = gains.max_by(|a, b| a.1.total_cmp(&b.1));
        self.tried = (self.tried + tries) % candidates.len();
        let (to, gain) = best?;
        (gain > GAIN).then_some(Tuning { from: *knobs, to, gain })
    }
}

/// Whether it was better in more parts of the past than it was worse in: what saves much once and costs a little ever after
/// has only met an accident.
fn is_better_mostly(then: &Outcome, now: &Outcome, weight: f64) -> bool {
    let least = LEAST * now.cost(weight);
    let (mut better, mut worse) = (0, 0);
    for (then, now) in then.costs(weight).zip(now.costs(weight)) {
        better += u32::from(then < now - least);
        worse += u32::from(then > now + least);
    }
    better > worse
}

/// All that differ in one thing. `most` replicas were ever busy.
fn near(knobs: &Knobs, most: u32) -> Vec<Knobs> {
    let expect = [Expect::Present, Expect::Quantile(0.5), Expect::Quantile(0.8), Expect::Quantile(0.95)];
    let mut all: Vec<Knobs> = expect.iter().map(|&expect| Knobs { expect, ..*knobs }).collect();
    all.extend([0.9, 1., 1.15, 1.3].map(|factor| Knobs { factor, ..*knobs }));
    all.extend([10., 20., 30., 60., 120., 300.].map(|hold| Knobs { hold, ..*knobs }));
    all.extend([true, false].map(|drains| Knobs { drains, ..*knobs }));
    all.extend([1, 2, 3, most.max(4)].map(|standing| Knobs { standing, ..*knobs }));
    all.extend([1., 2., 5., 20.].map(|idle| Knobs { idle, ..*knobs }));
    all.retain(|candidate| candidate != knobs);
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            history::History,
            replay::{Service, bursts},
        },
        *,
    };
    use crate::policy::Settings;

    fn past(seconds: u32) -> Past {
        let mut history = History::default();
        (0..seconds).for_each(|second| history.add(1., bursts(second)));
        let service = Service { rate: 1000., start: 20., size: 10., lump: 10., slack: 0.1 };
        let zero_after = Duration::from_secs(60);
        let settings =
            Settings { min: 0, max: 20, queue_depth: 16, objective: None, zero_after, tunes: true };
        Past::new(&history, service, settings)
    }

    #[test]
    fn what_would_have_been_clearly_better_is_taken_and_then_nothing_is() {
        let (mut tuner, past, mut knobs) = (Tuner::default(), past(3600), Knobs::default());
        let mut first = None;
        for _ in 0..50 {
            let Some(tuning) = tuner.search(&past, &knobs, ALLOWED, 100 * 3600) else {
                assert!(first.is_some_and(|gain| gain > 0.1), "{first:?}");
                return;
            };
            let cost = |knobs| past.live(knobs).cost(WEIGHT * tuner.strict.exp2());
            let gain = 1. - cost(&tuning.to) / cost(&knobs);
            assert_eq!(tuning.from, knobs);
            assert!((gain - tuning.gain).abs() < 1e-9 && gain > GAIN, "{tuning}");
            first.get_or_insert(gain);
            knobs = tuning.to;
        }
        panic!("it never ends");
    }

    #[test]
    fn little_history_and_no_budget_change_nothing() {
        let knobs = Knobs::default();
        assert_eq!(Tuner::default().search(&past(600), &knobs, 0.05, 100 * 3600), None);
        assert_eq!(Tuner::default().search(&past(3600), &knobs, 0.05, 3600), None);
    }

    #[test]
    fn a_small_budget_comes_round_in_the_end() {
        let (mut tuner, past, knobs) = (Tuner::default(), past(3600), Knobs::default());
        assert!((0..30).any(|_| tuner.search(&past, &knobs, ALLOWED, 3 * 3600).is_some()));
    }
}
