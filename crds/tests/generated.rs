//! What is generated from the types is checked in, so that it can be read and reviewed; here it is kept fresh.

use std::{fs, path::Path};

use kembed_crds::{crd, crd_yaml};

#[test]
fn the_chart_holds_the_crd_of_these_types() {
    let path = "charts/kembed/files/embeddingservices.kembed.dev.yaml";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == crd_yaml(), "{path} is stale: run `make generate` and commit what it writes");
}

/// `kubectl apply` keeps the whole object in an annotation, which may have 256 KiB with all others.
#[test]
fn the_crd_fits_an_annotation() {
    let size = serde_json::to_string(&crd()).expect("an API object always serialises").len();
    assert!(size < 200 * 1024, "the CRD has {size} bytes");
}

/// `kubectl explain` shows descriptions; every field of ours has one.
#[test]
fn every_field_is_described() {
    let value = serde_json::to_value(crd()).expect("an API object always serialises");
    let root = value.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").expect("the schema");
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        collect_undescribed(&root[part], part.to_owned(), &mut missing);
    }
    assert!(missing.is_empty(), "fields without a description: {missing:?}");
}

/// `kubectl explain` wraps descriptions, and shows defaults nowhere else.
#[test]
fn descriptions_are_one_line_and_tell_defaults() {
    let value = serde_json::to_value(crd()).expect("an API object always serialises");
    let root = value.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").expect("the schema");
    let description = |path: &str| {
        let found = root.pointer(&format!("/spec/properties/{path}/description"));
        found.and_then(|text| text.as_str()).unwrap_or_else(|| panic!("{path} is not described")).to_owned()
    };
    assert_eq!(description("scaling/properties/maxReplicas"), "The most pods. Default: 8.");
    assert!(description("replicas").ends_with(" Default: 1."));
    assert!(description("traffic/properties/queueTimeout").ends_with(" Default: 10m."));
    assert!(description("model/properties/pooling").ends_with(" Default: Auto."));
    assert!(!description("model/properties/uri").contains("Default"));
    let mut wrapped = Vec::new();
    collect_wrapped(&value, &mut wrapped);
    assert!(wrapped.is_empty(), "descriptions with line breaks: {wrapped:?}");
}

fn collect_wrapped<'a>(value: &'a serde_json::Value, wrapped: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(fields) => {
            let description = fields.get("description").and_then(|text| text.as_str());
            wrapped.extend(description.filter(|text| text.contains('\n')));
            fields.values().for_each(|value| collect_wrapped(value, wrapped));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_wrapped(item, wrapped)),
        _ => (),
    }
}

fn collect_undescribed(schema: &serde_json::Value, path: String, missing: &mut Vec<String>) {
    if schema.get("description").is_none() {
        missing.push(path.clone());
    }
    // Below these are Kubernetes' own types.
    if path.contains(".podTemplate.") || path.ends_with(".conditions") {
        return;
    }
    let items = schema.get("items").unwrap_or(schema);
    for (name, field) in items.get("properties").and_then(|p| p.as_object()).into_iter().flatten() {
        collect_undescribed(field, format!("{path}.{name}"), missing);
    }
}
