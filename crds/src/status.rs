//! What kembed answers. It changes when a count or a reason changes, never with live numbers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was seen last.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddingServiceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Progressing, ModelAvailable, SpaceConsistent, CapacityAvailable, with a latency objective ObjectiveAttainable
    /// and, with an accelerator, AcceleratorVerified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,

    /// Pods that answer requests.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Selects the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Where the service answers, from inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The vector space that this service serves for its whole life, as its first ready pod computed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SpaceStatus>,

    /// Why the count is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
}

/// What makes two vectors comparable.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpaceStatus {
    /// Fingerprint of weights, tokenizer, pooling, normalisation, prompts, length limit and precision.
    #[schemars(length(max = 71))]
    pub digest: String,

    /// The immutable revision that was loaded, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,

    /// Numbers in a vector, or labels of a model that classifies.
    pub dimension: i32,

    /// Tokens of an input that count.
    pub max_tokens: i32,
}

/// Why the count is what it is.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Reason code of the last decision.
    pub reason: String,

    /// Since when it holds.
    pub since: Time,
}
