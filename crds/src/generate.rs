//! The CustomResourceDefinition as YAML, from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

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

/// Adds its default to the description of each field that has one: `kubectl explain` does not show it otherwise.
fn tell_defaults(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let default = fields.get("default").and_then(|default| match default {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            });
            if let (Some(default), Some(Value::String(text))) = (default, fields.get_mut("description")) {
                text.push_str(&format!(" Default: {default}."));
            }
            fields.values_mut().for_each(tell_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(tell_defaults),
        _ => (),
    }
}

/// Makes one line of each description, which `kubectl explain` wraps by itself.
fn unwrap_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            fields.values_mut().for_each(unwrap_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_descriptions),
        _ => (),
    }
}

/// Removes the descriptions below a schema, not its own.
fn strip_nested_descriptions(schema: &mut Value) {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                // A property may itself be called "description"; that one is an object.
                if fields.get("description").is_some_and(Value::is_string) {
                    fields.remove("description");
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => (),
        }
    }
    if let Value::Object(fields) = schema {
        fields.values_mut().for_each(strip);
    }
}
