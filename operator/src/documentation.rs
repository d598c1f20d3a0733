//! Holds `docs/metrics.md` against the metrics that there are.

use prometheus_client::{encoding::text::encode, registry::Registry};

const DOCUMENTED: &str = include_str!("../../docs/metrics.md");

/// The metrics of a registry that the documentation does not name with their kind.
pub(crate) fn undocumented(registry: &Registry) -> Vec<String> {
    let mut text = String::new();
    encode(&mut text, registry).expect("a String takes all");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| format!("| `{name}{}` | {kind} |", if kind == "counter" { "_total" } else { "" }))
        .filter(|row| !DOCUMENTED.contains(row.as_str()))
        .collect()
}
