//! What is printed.

use kembed_scaling::simulate::Score;

use crate::{
    cases::{Entry, Outcome, STARTS},
    goals,
};

/// Weight of the share of misses in the cost.
pub const WEIGHT: f64 = 8.;

/// How who knows the future is called in JSON.
pub const CLAIRVOYANT: &str = "clairvoyant";

/// One line of JSON for each result.
pub fn print_lines(outcomes: &[Outcome]) {
    for outcome in outcomes {
        for entry in &outcome.entries {
            print_line(outcome, entry);
        }
        print_line(
            outcome,
            &Entry {
                policy: CLAIRVOYANT,
                settings: String::new(),
                is_default: true,
                score: outcome.clairvoyant.clone(),
                notes: None,
            },
        );
    }
}

fn print_line(outcome: &Outcome, entry: &Entry) {
    let Entry { policy, settings, is_default, score, notes } = entry;
    let notes = notes.as_ref();
    let line = serde_json::json!({
        "trace": outcome.name.trace,
        "seed": outcome.name.seed,
        "start": outcome.name.start,
        "policy": policy,
        "settings": settings,
        "default": is_default,
        "requests": score.requests,
        "missed": score.missed,
        "replica_seconds": score.replica_seconds,
        "slo_miss_fraction": score.miss_share(),
        "p50_ms": score.quantile(0.5) * 1e3,
        "p95_ms": score.quantile(0.95) * 1e3,
        "p99_ms": score.quantile(0.99) * 1e3,
        "cold_requests": score.cold,
        "scale_events": score.scale_events,
        "cost": score.cost(outcome.clairvoyant.replica_seconds, WEIGHT),
        "late_changes": notes.map(|notes| notes.late_changes),
        "recovery_seconds": notes.map(|notes| notes.recovery()),
    });
    println!("{line}");
}

/// Tables for people.
pub fn print(outcomes: &[Outcome], crowd: Vec<goals::Goal>) {
    println!("replica-seconds, share of misses and cost with w = {WEIGHT}");
    println!(
        "{:18} {:>15} | ours, then each peer: at its defaults, and at its best for the trace",
        "", "clairvoyant"
    );
    for outcome in outcomes {
        println!("{:18} {} | {}", outcome.name, told(outcome, &outcome.clairvoyant), all_told(outcome));
    }
    for (start, _) in STARTS {
        let of_start: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.name.start == start).collect();
        if of_start.is_empty() {
            continue;
        }
        let costs = of_start.iter().map(|outcome| cost(outcome, goals::ours(outcome)));
        let mean = goals::geometric_mean(costs);
        println!("cost of ours with a start of {start} s, geometric mean: {mean:.3}");
    }
    println!();
    for goal in goals::all(outcomes).into_iter().chain(crowd) {
        let is_met = if goal.is_met { "met   " } else { "MISSED" };
        println!("{is_met} {}: {} (wanted {})", goal.what, goal.reached, goal.wanted);
    }
}

fn all_told(outcome: &Outcome) -> String {
    let mut policies: Vec<&str> = outcome.entries.iter().map(|entry| entry.policy).collect();
    policies.dedup();
    let told = policies.iter().map(|policy| {
        let of_policy = || outcome.entries.iter().filter(|entry| entry.policy == *policy);
        let default = of_policy().find(|entry| entry.is_default).map(|entry| told(outcome, &entry.score));
        let best = of_policy().min_by(|a, b| cost(outcome, a).total_cmp(&cost(outcome, b)));
        let best = best.filter(|best| !best.is_default && *policy != "kembed");
        let best = best.map(|best| format!(" -> {}", told(outcome, &best.score)));
        format!("{policy} {}{}", default.unwrap_or_default(), best.unwrap_or_default())
    });
    told.collect::<Vec<_>>().join(" | ")
}

fn cost(outcome: &Outcome, entry: &Entry) -> f64 {
    entry.score.cost(outcome.clairvoyant.replica_seconds, WEIGHT)
}

fn told(outcome: &Outcome, score: &Score) -> String {
    let cost = score.cost(outcome.clairvoyant.replica_seconds, WEIGHT);
    format!("{:.0} {:.1} % {cost:.2}", score.replica_seconds, 100. * score.miss_share())
}
