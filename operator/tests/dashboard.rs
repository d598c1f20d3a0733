//! Holds the chart's dashboard against the documentation: it asks for nothing that no program tells.

use std::collections::BTreeSet;

use serde_json::Value;

const DASHBOARD: &str = include_str!("../../charts/kembed/dashboards/kembed.json");
const DOCUMENTED: [&str; 2] =
    [include_str!("../../docs/metrics.md"), include_str!("../../docs/inference-pod.md")];

/// Units that Grafana knows, of those that are used here.
const UNITS: [&str; 5] = ["s", "short", "reqps", "ops", "percentunit"];

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list").iter();
    panels.filter(|panel| panel["type"] != "row").cloned().collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {value}"))
}

fn queries(panel: &Value) -> Vec<&str> {
    panel["targets"].as_array().expect("a list").iter().map(|target| text(target, "expr")).collect()
}

/// Names in an expression that are metrics: all of ours begin alike, and so does one label, which is none.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kembed_") && *word != "kembed_dev_service")
}

/// What is documented of each metric: its name as it is scraped, and its kind.
fn documented() -> Vec<(String, String)> {
    let rows =
        DOCUMENTED.iter().flat_map(|document| document.lines().filter(|line| line.starts_with("| `kembed_")));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells
        .map(|cells| {
            let name = cells[1].trim_matches('`').split('{').next().unwrap_or_default();
            (name.to_owned(), cells[2].to_owned())
        })
        .collect()
}

#[test]
fn each_metric_that_it_names_is_documented_and_used_as_its_kind_is() {
    let documented = documented();
    for panel in panels() {
        for query in queries(&panel) {
            let named: Vec<_> = metrics(query).collect();
            assert!(!named.is_empty(), "{query} asks for nothing of ours");
            for metric in named {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
                let kind = documented.iter().find_map(|(name, kind)| {
                    let is_part = kind == "histogram" && base == Some(name.as_str());
                    (is_part || (name == metric && kind != "histogram")).then_some(kind.as_str())
                });
                let kind =
                    kind.unwrap_or_else(|| panic!("{metric} of {:?} is not documented", panel["title"]));
                let grows = query.contains("rate(") || query.contains("increase(");
                assert_eq!(grows, kind != "gauge", "{metric} is a {kind} in {query}");
            }
        }
    }
}

#[test]
fn what_it_is_there_for_is_in_it() {
    let panels = panels();
    let asked: BTreeSet<_> = panels.iter().flat_map(|panel| queries(panel)).flat_map(metrics).collect();
    for metric in [
        "kembed_gateway_waiting_requests",
        "kembed_gateway_wait_seconds_bucket",
        "kembed_gateway_upstream_seconds_bucket",
        "kembed_queue_wait_seconds_bucket",
        "kembed_run_seconds_bucket",
        "kembed_autoscaler_writes_total",
        "kembed_autoscaler_replicas",
        "kembed_autoscaler_need_replicas",
        "kembed_autoscaler_stream_failures_total",
        "kembed_gateway_refusals_total",
        "kembed_gateway_credit_tokens",
        "kembed_gateway_key_requests_total",
        "kembed_gateway_key_tokens_total",
    ] {
        assert!(asked.contains(metric), "{metric} is nowhere");
    }
}

#[test]
fn panels_are_whole_and_do_not_overlap() {
    let panels = panels();
    let mut places: Vec<[u64; 4]> = Vec::new();
    for panel in &panels {
        let title = text(panel, "title");
        assert!(text(panel, "description").ends_with('.'), "{title} says what it shows");
        assert!(UNITS.contains(&text(&panel["fieldConfig"]["defaults"], "unit")), "{title} has a unit");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24, "{title} is too wide");
        let overlaps = |[a, b, c, d]: &[u64; 4]| x < a + c && *a < x + w && y < b + d && *b < y + h;
        assert!(!places.iter().any(overlaps), "{title} lies over another");
        places.push([x, y, w, h]);
        for target in panel["targets"].as_array().expect("a list") {
            assert_eq!(text(&target["datasource"], "uid"), "${datasource}", "{title}");
            assert!(!text(target, "legendFormat").is_empty(), "{title} has legends");
            let query = text(target, "expr");
            for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
                assert_eq!(query.matches(open).count(), query.matches(close).count(), "{query}");
            }
            let is_local = query.contains("$release") || query.contains("$namespace");
            assert!(is_local, "{query} would add up what several installations tell");
        }
    }
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each has an id of its own");
}
