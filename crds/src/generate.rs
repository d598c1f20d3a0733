//! The CustomResourceDefinition as YAML, from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::EmbeddingService;

/// The CustomResourceDefinition of [`EmbeddingService`].
pub fn crd() -> CustomResourceDefinition {
    let mut value = serde_json::to_value(EmbeddingService::crd()).expect("an API object always serialises");
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties";
    // The types of Kubernetes come with book-length descriptions, which `kubectl explain pod` has as well.
    if let Some(Value::Object(fields)) =
        value.pointer_mut(&format!("{schema}/spec/properties/podTemplate/properties"))
    {
        fields.values_mut().for_each(strip_nested_descriptions);
    }
    for field in [
        "spec/properties/model/properties/cache/properties/emptyDir/properties/sizeLimit",
        "spec/properties/rollout/properties/maxSurge",
        "spec/properties/rollout/properties/maxUnavailable",
    ] {
        if let Some(field) = value.pointer_mut(&format!("{schema}/{field}")) {
            strip_nested_descriptions(field);
        }
    }
    if let Some(spec) = value.pointer_mut(&format!("{schema}/spec")) {
        tell_defaults(spec);
    }
    unwrap_descriptions(&mut value);
    // Without a bound the API server takes the rule on the name for too costly. A longer name is no label anyway.
    let name =
        serde_json::json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 63}}});
    value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["metadata"] = name;
    serde_json::from_value(value).expect("descriptions are optional")
}

/// [`crd`] as YAML, with a line that says where it comes from.
pub fn crd_yaml() -> String {
    let yaml = serde_saphyr::to_string(&crd()).expect("an API object always serialises");
    format!("# Generated from crds/src by `operator crds`; `make generate` writes it again.\n{yaml}")
}

/// Calls `act` for a value and what is in it, as far as they are objects, the outer ones first.
fn each_object(value: &mut Value, act: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            act(fields);
            fields.values_mut().for_each(|field| each_object(field, act));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, act)),
        _ => (),
    }
}

/// Adds its default to the description of each field that has one: `kubectl explain` does not show it otherwise.
fn tell_defaults(schema: &mut Value) {
    each_object(schema, &mut |fields| {
        let default = fields.get("default").and_then(|default| match default {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        if let (Some(default), Some(Value::String(text))) = (default, fields.get_mut("description")) {
            text.push_str(&format!(" Default: {default}."));
        }
    });
}

/// Makes one line of each description, which `kubectl explain` wraps by itself.
fn unwrap_descriptions(schema: &mut Value) {
    each_object(schema, &mut |fields| {
        if let Some(Value::String(text)) = fields.get_mut("description") {
            *text = text.replace('\n', " ");
        }
    });
}

/// Removes the descriptions below a schema, not its own.
fn strip_nested_descriptions(schema: &mut Value) {
    let mut strip = |fields: &mut Map<String, Value>| {
        // A property may itself be called "description"; that one is an object.
        if fields.get("description").is_some_and(Value::is_string) {
            fields.remove("description");
        }
    };
    if let Value::Object(fields) = schema {
        fields.values_mut().for_each(|field| each_object(field, &mut strip));
    }
}
