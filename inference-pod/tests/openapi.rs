//! The description of the API says what there is, no less and no more.

mod support;

use std::{collections::BTreeSet, time::Duration};

use axum::{body::Body, http::Request};
use inference_pod::{backend::Took, cuda::sensors::Reading};
use kembed_queue::wire::{INFO_PATH, LIVE_PATH, READY_PATH};
use serde_json::Value;
use support::{answering, get, identity, limits, send};

async fn document() -> Value {
    get(&answering(limits(), identity()), "/openapi.json").await.json()
}

/// Every `METHOD path` of the document.
fn described(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("an object");
    let of_path = |(path, item): (&String, &Value)| {
        let methods = item.as_object().expect("an object").keys();
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// Every `METHOD path` in the source of the router.
fn routed() -> BTreeSet<String> {
    let source = include_str!("../src/api/mod.rs");
    let calls = source.split(".route(").skip(1);
    let routes = calls.map(|call| call.split_once(", ").expect("a path and a handler"));
    let routes = routes.filter(|(_, handler)| !handler.starts_with("options("));
    let name = |(path, handler): (&str, &str)| {
        let path = match path {
            "INFO_PATH" => INFO_PATH,
            "LIVE_PATH" => LIVE_PATH,
            "READY_PATH" => READY_PATH,
            quoted => quoted.trim_matches('"'),
        };
        let method = handler.split('(').next().expect("a first part").to_uppercase();
        format!("{method} {path}")
    };
    routes.map(name).collect()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let document = document().await;
    assert_eq!(described(&document), routed());
    assert!(routed().len() > 15);
}

#[tokio::test]
async fn what_is_described_is_there() {
    let pod = answering(limits(), identity());
    for route in described(&document().await) {
        let (method, path) = route.split_once(' ').expect("two words");
        let request =
            Request::builder().method(method).uri(path).body(Body::empty()).expect("a good request");
        let status = send(&pod, request).await.status.as_u16();
        assert!(!matches!(status, 404 | 405), "{route}: {status}");
    }
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let page = get(&answering(limits(), identity()), "/ui").await;
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    // SHA-256 of nothing: an element was not found.
    assert!(!policy.contains("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), "{policy}");
    for word in ["http://", "https://", "src=", "@import", "url(", " style=", "onclick"] {
        assert!(!page.text.contains(word), "{word}");
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// What people read: see docs/.
const GUIDE: &str = include_str!("../../docs/inference-pod.md");

#[tokio::test]
async fn the_guide_has_every_route_field_and_code() {
    let document = document().await;
    for route in described(&document) {
        assert!(GUIDE.contains(&format!("`{route}")), "{route}");
    }
    let schemas = &document["components"]["schemas"];
    for schema in [
        "EmbeddingRequest",
        "EmbedRequest",
        "EmbedAllRequest",
        "RerankRequest",
        "PredictRequest",
        "TokenizeRequest",
        "DecodeRequest",
    ] {
        for field in schemas[schema]["properties"].as_object().expect("an object").keys() {
            assert!(GUIDE.contains(&format!("`{field}`")), "{schema}: {field}");
        }
    }
    for code in [
        &schemas["OpenAIError"]["properties"]["error"]["properties"]["code"]["enum"],
        &schemas["TEIError"]["properties"]["error_type"]["enum"],
    ] {
        for code in code.as_array().expect("a list") {
            let code = code.as_str().expect("a word");
            assert!(GUIDE.contains(&format!("`{code}`")), "{code}");
        }
    }
}

#[tokio::test]
async fn the_guide_has_every_metric() {
    let pod = answering(limits(), identity());
    // A family shows once it has a member.
    get(&pod, "/?content=a").await;
    get(&pod, "/").await;
    let of_gpu = Took { device: 0, copy_in: SECOND, compute: SECOND, copy_out: SECOND, idle: Some(SECOND) };
    pod.metrics.device_took(&of_gpu);
    let reading = Reading { memory: Some((1, 2)), busy: Some(1.), power: Some(1.), slowed: Some(0) };
    pod.metrics.sensors.show(0, reading);
    let metrics = get(&pod, "/metrics").await.text;
    let types: Vec<_> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(types.len() > 15, "{metrics}");
    for (name, kind) in types {
        let total = if kind == "counter" { "_total" } else { "" };
        // The first of a metric's lines shows its labels; of a histogram's own one, `le`, the guide says nothing.
        let line = metrics.lines().find(|line| line.starts_with(name)).expect("a value");
        let label = line.split_once('{').and_then(|(_, labels)| labels.split('=').next());
        let labels =
            label.filter(|&label| label != "le").map_or(String::new(), |label| format!("{{{label}}}"));
        let row = format!("| `{name}{total}{labels}` | {kind} |");
        assert!(GUIDE.contains(&row), "{row}");
    }
    let rows = GUIDE.lines().filter(|line| line.starts_with("| `kembed_")).count();
    assert_eq!(rows, metrics.lines().filter(|line| line.starts_with("# TYPE ")).count());
}

#[tokio::test]
async fn references_lead_somewhere_and_the_version_is_ours() {
    let document = document().await;
    let text = document.to_string();
    for part in text.split(r##""$ref":"#"##).skip(1) {
        let pointer = part.split('"').next().expect("a first part");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["openapi"], "3.1.0");
}
