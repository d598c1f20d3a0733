//! EmbeddingServices as tests write and read them.

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kembed_crds::{
    EmbeddingService, SpaceStatus,
    conditions::{ConditionType, Reason},
};
use serde_json::{Value, json};

/// The model that the test hub serves.
pub const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// The small reranker that the test hub serves.
pub const RERANKER: &str = "test/reranker";

/// The small classifier that the test hub serves.
pub const CLASSIFIER: &str = "test/classifier";

/// The small model of vectors that the test hub serves as graphs alone.
pub const SHIPPED: &str = "test/shipped";

/// An EmbeddingService of the test model.
pub fn minilm(name: &str) -> Value {
    of_model(name, &format!("hf://{MODEL}"))
}

/// An EmbeddingService of the model at `uri`.
pub fn of_model(name: &str, uri: &str) -> Value {
    json!({
        "apiVersion": "kembed.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"name": name},
        "spec": {"model": {"uri": uri}},
    })
}

/// The object with these fields put into its spec, objects merged and other values replaced.
pub fn with(mut service: Value, spec: Value) -> Value {
    merge(&mut service["spec"], spec);
    service
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The condition of that type.
pub fn condition(service: &EmbeddingService, kind: ConditionType) -> Option<&Condition> {
    service.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition of that type is true, and speaks of the spec as it is now.
pub fn is_true(service: &EmbeddingService, kind: ConditionType) -> bool {
    condition(service, kind)
        .is_some_and(|condition| condition.status == "True" && current(service, condition))
}

/// Whether the condition of that type is false for this reason, and speaks of the spec as it is now.
pub fn is_false(service: &EmbeddingService, kind: ConditionType, reason: Reason) -> bool {
    condition(service, kind).is_some_and(|condition| {
        condition.status == "False" && condition.reason == reason.as_str() && current(service, condition)
    })
}

/// Whether the service is ready with exactly so many pods, none of them on its way.
pub fn serves_with(service: &EmbeddingService, pods: i32) -> bool {
    let counts = service.status.as_ref().map(|status| (status.replicas, status.ready_replicas));
    is_true(service, ConditionType::Ready) && counts == Some((pods, pods))
}

/// What is recorded of the service's vectors.
///
/// # Errors
/// If nothing is yet.
pub fn recorded_space(service: &EmbeddingService) -> anyhow::Result<SpaceStatus> {
    service.status.clone().and_then(|status| status.space).context("no recorded space")
}

fn current(service: &EmbeddingService, condition: &Condition) -> bool {
    condition.observed_generation == service.metadata.generation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_merged() {
        let service = with(minilm("a"), json!({"model": {"maxTokens": 8}, "replicas": 2}));
        let uri = format!("hf://{MODEL}");
        assert_eq!(service["spec"], json!({"model": {"uri": uri, "maxTokens": 8}, "replicas": 2}));
    }
}
