//! Ours, with what a user may choose.

use std::time::Duration;

use kembed_scaling::{Objective, Settings};

/// Percentiles that a user may write beside the default, each of which is another balance of replicas and misses.
const SHARES: [f64; 4] = [0.5, 0.8, 0.9, 0.99];

/// Seconds until the last pod goes that a user may write beside the default.
const ZERO_AFTER: [u64; 2] = [60, 3600];

/// Other percentiles, with what they are called.
pub fn percentiles(settings: &Settings) -> Vec<(String, Settings)> {
    let variant = |share: f64, objective: Objective| {
        let objective = Some(Objective { share, ..objective });
        (format!("percentile {:.0}", share * 100.), Settings { objective, ..*settings })
    };
    settings.objective.map_or(Vec::new(), |objective| SHARES.map(|share| variant(share, objective)).into())
}

/// Other times until the last pod goes, with what they are called.
pub fn sleeps(settings: &Settings) -> Vec<(String, Settings)> {
    let variant = |seconds| {
        let zero_after = Duration::from_secs(seconds);
        (format!("to zero after {seconds} s"), Settings { zero_after, ..*settings })
    };
    ZERO_AFTER.map(variant).into()
}
