//! Holds `docs/metrics.md` and `docs/gateway.md` against what there is.

use prometheus_client::{encoding::text::encode, registry::Registry};

const DOCUMENTED: &str = include_str!("../../docs/metrics.md");

/// What a user reads of the gateway.
pub(crate) const GATEWAY: &str = include_str!("../../docs/gateway.md");

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

/// The rows of the table in a document that follows this heading, without its head.
pub(crate) fn rows(document: &str, heading: &str) -> Vec<String> {
    let section = document.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_default();
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    lines.skip(2).take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}
