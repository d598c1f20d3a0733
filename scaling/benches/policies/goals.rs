//! How good ours is meant to be, and what was reached.

use kembed_scaling::simulate::{Score, peers::Peer};

use crate::{
    cases::{Entry, Outcome, SHARE, STARTS},
    table::WEIGHT,
};

/// One line of the table.
pub struct Goal {
    /// What is measured.
    pub what: String,
    /// What is wanted of it.
    pub wanted: String,
    /// What it is.
    pub reached: String,
    /// Whether that is enough.
    pub is_met: bool,
}

/// All that the outcomes can tell of. Without the grid of the peers' settings nobody was tuned.
pub fn all(outcomes: &[Outcome]) -> Vec<Goal> {
    if outcomes.is_empty() {
        return Vec::new();
    }
    let has_grid = outcomes.iter().any(|outcome| peers(outcome).any(|entry| !entry.is_default));
    let mut goals = Vec::new();
    for ((start, _), (single, tuned)) in STARTS.iter().zip([(0.75, 0.93), (0.75, 0.95), (0.80, 1.00)]) {
        let of_start: Vec<&Outcome> =
            outcomes.iter().filter(|outcome| outcome.name.start == *start).collect();
        if of_start.is_empty() || !has_grid {
            continue;
        }
        goals.extend(against_single(&of_start, *start, single));
        goals.extend(against_tuned(&of_start, *start, tuned));
    }
    goals.extend(against_defaults(outcomes));
    goals.extend(objective(outcomes));
    goals.extend(has_grid.then(|| worse_in_both(outcomes)));
    goals.push(unbeaten(outcomes));
    goals.extend(steady(outcomes));
    goals.extend(step(outcomes));
    goals
}

/// Ours at its default.
pub fn ours(outcome: &Outcome) -> &Entry {
    let is_ours = |entry: &&Entry| entry.policy == "kembed" && entry.is_default;
    outcome.entries.iter().find(is_ours).expect("ours plays every case")
}

fn peers(outcome: &Outcome) -> impl Iterator<Item = &Entry> {
    outcome.entries.iter().filter(|entry| entry.policy != "kembed")
}

fn cost(outcome: &Outcome, score: &Score) -> f64 {
    score.cost(outcome.clairvoyant.replica_seconds, WEIGHT)
}

/// That of nothing is no number.
pub fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0., 0.), |(sum, count), value| (sum + value.ln(), count + 1.));
    f64::exp(sum / count)
}

/// The costs of the peer's setting that is the best for each trace.
fn hindsight<'a>(outcome: &'a Outcome, peer: Option<&str>) -> Option<&'a Entry> {
    let of_peer = peers(outcome).filter(|entry| peer.is_none_or(|peer| entry.policy == peer));
    of_peer.min_by(|a, b| cost(outcome, &a.score).total_cmp(&cost(outcome, &b.score)))
}

/// Ours against the one setting of any peer that is the best over all traces.
fn against_single(outcomes: &[&Outcome], start: u64, wanted: f64) -> Option<Goal> {
    let ours_mean = geometric_mean(outcomes.iter().map(|outcome| cost(outcome, &ours(outcome).score)));
    let settings = peers(outcomes[0]).map(|entry| (entry.policy, entry.settings.as_str()));
    let mean = |(policy, settings): (&str, &str)| {
        geometric_mean(outcomes.iter().map(|outcome| {
            let same = |entry: &&Entry| entry.policy == policy && entry.settings == settings;
            cost(outcome, &peers(outcome).find(same).expect("all settings play all cases").score)
        }))
    };
    let best = settings.map(|setting| (mean(setting), setting)).min_by(|a, b| a.0.total_cmp(&b.0))?;
    let (best, (policy, settings)) = best;
    Some(Goal {
        what: format!(
            "cost against the best single setting of any peer, S = {start} s ({policy}: {settings})"
        ),
        wanted: format!("<= {wanted:.2}"),
        reached: format!("{:.3}", ours_mean / best),
        is_met: ours_mean / best <= wanted,
    })
}

/// Ours against each peer, and all of them, tuned for each trace with hindsight.
fn against_tuned(outcomes: &[&Outcome], start: u64, wanted: f64) -> Vec<Goal> {
    let names = Peer::NAMES.map(Some).into_iter().chain([None]);
    let goal = |peer: Option<&str>| {
        let ratio = |outcome: &&Outcome| {
            let best = hindsight(outcome, peer)?;
            Some(cost(outcome, &ours(outcome).score) / cost(outcome, &best.score))
        };
        let ratios: Option<Vec<f64>> = outcomes.iter().map(ratio).collect();
        let reached = geometric_mean(ratios?.into_iter());
        Some(Goal {
            what: format!("cost against {} tuned per trace, S = {start} s", peer.unwrap_or("whichever peer")),
            wanted: format!("<= {wanted:.2}"),
            reached: format!("{reached:.3}"),
            is_met: reached <= wanted,
        })
    };
    names.filter_map(goal).collect()
}

/// Ours against each peer's defaults.
fn against_defaults(outcomes: &[Outcome]) -> Vec<Goal> {
    let goal = |peer: &str| {
        let is_default = |entry: &&Entry| entry.policy == peer && entry.is_default;
        let pairs: Option<Vec<(&Outcome, &Score)>> =
            outcomes.iter().map(|outcome| Some((outcome, &peers(outcome).find(is_default)?.score))).collect();
        let pairs = pairs?;
        let share = |entries: fn(&Outcome) -> Vec<&Entry>| {
            let won = pairs.iter().filter(|(outcome, theirs)| is_clearly_better(&entries(outcome), theirs));
            won.count() as f64 / pairs.len() as f64
        };
        let alone = share(|outcome| vec![ours(outcome)]);
        let share = share(all_of_ours);
        let lost: Vec<String> = pairs
            .iter()
            .filter(|(outcome, theirs)| {
                let ours = all_of_ours(outcome);
                !is_clearly_better(&ours, theirs) && !is_as_good(&ours, theirs)
            })
            .map(|(outcome, _)| outcome.name.to_string())
            .collect();
        Some(Goal {
            what: format!("half the misses or 80 % of the replica-seconds of {peer} at its defaults"),
            wanted: ">= 90 % of traces, equal on the rest".into(),
            reached: format!(
                "{:.1} %, with our defaults alone {:.1} %; worse on {}",
                100. * share,
                100. * alone,
                if lost.is_empty() { "none".to_owned() } else { lost.join(", ") }
            ),
            is_met: share >= 0.9 && lost.is_empty(),
        })
    };
    Peer::NAMES.iter().filter_map(|peer| goal(peer)).collect()
}

/// With all that was played: what a user may write, and so the points at which replicas can be had for misses.
fn all_of_ours(outcome: &Outcome) -> Vec<&Entry> {
    outcome.entries.iter().filter(|entry| entry.policy == "kembed").collect()
}

/// A share of misses that is none: a hundredth of what the objective allows.
const NONE: f64 = 0.0005;

/// At no more replica-seconds at most half the misses, or at no more misses, [`NONE`] being none, at most 80 % of the
/// replica-seconds.
fn is_clearly_better(ours: &[&Entry], theirs: &Score) -> bool {
    ours.iter().any(|entry| {
        let ours = &entry.score;
        let (seconds, missed) =
            (ours.replica_seconds / theirs.replica_seconds, ours.missed * 2 <= theirs.missed);
        let no_more = ours.miss_share() <= theirs.miss_share().max(NONE);
        (seconds <= 1. && missed && theirs.missed > 0) || (no_more && seconds <= 0.8)
    })
}

/// Within 5 % in both, [`NONE`] being none.
fn is_as_good(ours: &[&Entry], theirs: &Score) -> bool {
    ours.iter().any(|entry| {
        let ours = &entry.score;
        let misses = ours.miss_share() <= theirs.miss_share() * 1.05 + NONE;
        misses && ours.replica_seconds <= theirs.replica_seconds * 1.05
    })
}

/// Who keeps what the user asked for, and what that takes.
fn objective(outcomes: &[Outcome]) -> Vec<Goal> {
    let keeps = |score: &Score| score.miss_share() <= 1. - SHARE;
    let goal = |peer: &str| {
        let is_default = |entry: &&Entry| entry.policy == peer && entry.is_default;
        let theirs: Option<Vec<&Score>> =
            outcomes.iter().map(|outcome| Some(&peers(outcome).find(is_default)?.score)).collect();
        let (mut kept, mut both, theirs) = ((0, 0), Vec::new(), theirs?);
        for (outcome, theirs) in outcomes.iter().zip(&theirs) {
            let ours = &ours(outcome).score;
            kept = (kept.0 + u32::from(keeps(ours)), kept.1 + u32::from(keeps(theirs)));
            if keeps(ours) && keeps(theirs) {
                both.push(ours.replica_seconds / theirs.replica_seconds);
            }
        }
        let mean = geometric_mean(both.iter().copied());
        let seconds = match both.len() {
            0 => "by both on none".to_owned(),
            count => format!("by both on {count}, by ours for {mean:.2} of the replica-seconds"),
        };
        Some(Goal {
            what: format!("traces on which the objective is kept, ours and {peer} at its defaults"),
            wanted: "no fewer, for fewer replica-seconds where both do".into(),
            reached: format!("{} and {} of {}; {seconds}", kept.0, kept.1, outcomes.len()),
            is_met: kept.0 >= kept.1 && (both.is_empty() || mean < 1.),
        })
    };
    Peer::NAMES.iter().filter_map(|peer| goal(peer)).collect()
}

/// Where a peer that is tuned for the trace with hindsight needs less and misses less.
fn worse_in_both(outcomes: &[Outcome]) -> Goal {
    let mut pairs = 0;
    let mut worse = Vec::new();
    for outcome in outcomes {
        let ours = &ours(outcome).score;
        for theirs in Peer::NAMES.iter().filter_map(|peer| hindsight(outcome, Some(peer))) {
            pairs += 1;
            if theirs.score.beats(ours) {
                let seconds = ours.replica_seconds / theirs.score.replica_seconds;
                let misses = ours.miss_share() / theirs.score.miss_share();
                worse.push((seconds.min(misses), format!("{} {}", outcome.name, theirs.policy)));
            }
        }
    }
    let share = worse.len() as f64 / f64::from(pairs.max(1));
    worse.sort_by(|a, b| b.0.total_cmp(&a.0));
    let most = worse.first().map_or(1., |worst| worst.0);
    let told: Vec<String> =
        worse.iter().take(8).map(|(factor, name)| format!("{name} {factor:.2}")).collect();
    Goal {
        what: "worse in both than a peer tuned per trace".into(),
        wanted: "<= 10 % of traces, by <= 1.25".into(),
        reached: format!("{:.1} %, by <= {most:.2}: {}", 100. * share, told.join(", ")),
        is_met: share <= 0.1 && most <= 1.25,
    }
}

/// Whether anybody does better than who knows the future, by more than what the last batches can make of it.
fn unbeaten(outcomes: &[Outcome]) -> Goal {
    let beaten: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| outcome.entries.iter().map(move |entry| (outcome, entry)))
        .filter(|(outcome, entry)| {
            let (best, score) = (&outcome.clairvoyant, &entry.score);
            score.replica_seconds < 0.999 * best.replica_seconds && score.missed <= best.missed
        })
        .map(|(outcome, entry)| format!("{} {} {}", outcome.name, entry.policy, entry.settings))
        .collect();
    Goal {
        what: "better in both than the schedule that knows the future".into(),
        wanted: "nobody".into(),
        reached: format!("{} {}", beaten.len(), beaten.join(", ")),
        is_met: beaten.is_empty(),
    }
}

fn steady(outcomes: &[Outcome]) -> Option<Goal> {
    let changes = outcomes.iter().filter(|outcome| outcome.name.trace == "steady");
    let changes: Vec<u32> =
        changes.filter_map(|outcome| Some(ours(outcome).notes.as_ref()?.late_changes)).collect();
    let most = *changes.iter().max()?;
    Some(Goal {
        what: "changes of the count under a steady load, after 10 minutes".into(),
        wanted: "0".into(),
        reached: format!("{changes:?}"),
        is_met: most == 0,
    })
}

fn step(outcomes: &[Outcome]) -> Option<Goal> {
    let steps = outcomes.iter().filter(|outcome| outcome.name.trace == "step" && outcome.name.start == 2);
    let seconds: Vec<usize> =
        steps.filter_map(|outcome| Some(ours(outcome).notes.as_ref()?.recovery())).collect();
    let most = *seconds.iter().max()?;
    Some(Goal {
        what: "seconds until the objective is met again after a step by ten, S = 2 s".into(),
        wanted: "<= 6".into(),
        reached: format!("{seconds:?}"),
        is_met: most <= 6,
    })
}
