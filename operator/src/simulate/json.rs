//! Results for programs.

use serde::Serialize;

use crate::simulate::league::{League, Standing};

/// One policy on one trace.
#[derive(Serialize)]
struct Row<'a> {
    /// Only where there is more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
    policy: &'static str,
    tuned: bool,
    replica_seconds: f64,
    slo_miss_fraction: f64,
    /// `null` where so many were never answered.
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
    cold_requests: u64,
    scale_events: u64,
}

/// The list of all that is told of.
pub(super) fn list(leagues: &[League]) -> String {
    let row = |league: &'_ League, standing: &Standing| {
        let score = &standing.score;
        let milliseconds = |share| Some(score.quantile(share) * 1e3).filter(|time| time.is_finite());
        serde_json::to_value(Row {
            trace: (leagues.len() > 1).then_some(league.name.as_str()),
            policy: standing.player.name(),
            tuned: standing.tuned,
            replica_seconds: score.replica_seconds,
            slo_miss_fraction: score.miss_share(),
            p50_ms: milliseconds(0.5),
            p95_ms: milliseconds(0.95),
            p99_ms: milliseconds(0.99),
            cold_requests: score.cold,
            scale_events: score.scale_events,
        })
        .expect("numbers and strings always serialise")
    };
    let rows: Vec<serde_json::Value> = leagues
        .iter()
        .flat_map(|league| league.standings.iter().map(move |standing| row(league, standing)))
        .collect();
    serde_json::to_string_pretty(&rows).expect("values always serialise")
}
