//! What is printed.

use crate::cases::{Entry, Outcome};

/// Weight of the share of misses in the cost.
pub const WEIGHT: f64 = 8.;

/// One line of JSON for each result.
pub fn print_lines(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let clairvoyant = Entry {
            policy: "clairvoyant",
            settings: String::new(),
            is_default: false,
            score: outcome.clairvoyant.clone(),
        };
        for entry in std::iter::once(&clairvoyant).chain(&outcome.entries) {
            let score = &entry.score;
            let line = serde_json::json!({
                "case": outcome.case,
                "policy": entry.policy,
                "settings": entry.settings,
                "default": entry.is_default,
                "replica_seconds": score.replica_seconds,
                "slo_miss_fraction": score.miss_share(),
                "p50_ms": score.quantile(0.5) * 1e3,
                "p95_ms": score.quantile(0.95) * 1e3,
                "p99_ms": score.quantile(0.99) * 1e3,
                "cold_requests": score.cold,
                "scale_events": score.scale_events,
                "cost": score.cost(outcome.clairvoyant.replica_seconds, WEIGHT),
            });
            println!("{line}");
        }
    }
}

/// Tables for people.
pub fn print(outcomes: &[Outcome]) {
    println!("replica-seconds, misses, cost");
    for outcome in outcomes {
        let clairvoyant = &outcome.clairvoyant;
        let mut line = format!(
            "{:16} {:>7.0} {:6.2}%",
            outcome.case,
            clairvoyant.replica_seconds,
            100. * clairvoyant.miss_share()
        );
        for entry in outcome.entries.iter().filter(|entry| entry.is_default) {
            let score = &entry.score;
            let cost = score.cost(clairvoyant.replica_seconds, WEIGHT);
            line += &format!(
                " | {} {:.0} {:.1}% {cost:.2}",
                entry.policy,
                score.replica_seconds,
                100. * score.miss_share()
            );
        }
        println!("{line}");
    }
}
