//! Ours, with what a user may choose.

use kembed_scaling::{
    Objective, Scaler, Settings,
    simulate::{Contender, Ours},
};

/// Percentiles that a user may write beside the default, each of which is another balance of replicas and misses.
const SHARES: [f64; 4] = [0.5, 0.8, 0.9, 0.99];

/// Ours at its default, whose name is empty, and unless it is to be quick with other percentiles.
pub fn variants(settings: &Settings, is_quick: bool) -> Vec<(String, Box<dyn Contender>)> {
    let contender = |settings: &Settings| Box::new(Ours(Scaler::new(*settings))) as Box<dyn Contender>;
    let mut variants = vec![(String::new(), contender(settings))];
    if let Some(objective) = settings.objective.filter(|_| !is_quick) {
        variants.extend(SHARES.map(|share| {
            let objective = Some(Objective { share, ..objective });
            (format!("percentile {:.0}", share * 100.), contender(&Settings { objective, ..*settings }))
        }));
    }
    variants
}
