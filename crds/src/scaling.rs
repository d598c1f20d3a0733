//! The objective that the replica count is meant to keep, and its bounds.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// The objective that the replica count is meant to keep, and its bounds.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not exceed maxReplicas: lower the one or raise the other")
)]
pub struct Scaling {
    /// The fewest pods. 0 lets the service sleep while nobody asks.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self >= 0").message("minReplicas counts pods: write 0 or more"))]
    pub min_replicas: i32,

    /// The most pods.
    #[serde(default = "eight")]
    #[x_kube(validation = Rule::new("self >= 1").message("maxReplicas must be at least 1; to switch the service off leave scaling out and set replicas: 0"))]
    pub max_replicas: i32,

    /// Waiting requests tolerated for each ready pod.
    #[serde(default = "sixteen")]
    #[x_kube(validation = Rule::new("self >= 1").message("queueDepth counts waiting requests for each ready pod: write 1 or more"))]
    pub queue_depth: i32,

    /// The latency to keep, from receipt to the last byte of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,

    /// How long no request must come before the last pod goes. It stays longer where pods take long to start: for twice that
    /// time, which is taken to be 30 s until it was measured, or as tuning finds to pay. Counts only if minReplicas is 0.
    #[serde(default = "five_minutes")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("scaleToZeroAfter must be longer than zero, as in 5m"))]
    pub scale_to_zero_after: Duration,

    /// Whether kembed tunes how it scales this service, by what would have been better in the last hour. It never leaves the
    /// bounds. Write "Off" with its quotes, without which YAML has it for false.
    #[serde(default)]
    pub tuning: Tuning,
}

/// Whether kembed tunes how it scales a service.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tuning {
    /// It does.
    #[default]
    Auto,
    /// It stays as it is at first.
    Off,
}

/// A latency objective: the given share of requests is answered within the target.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Which percentile must meet the target.
    #[serde(default = "ninety_five")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 99").message("percentile must be between 1 and 99, as in 95"))]
    pub percentile: i32,

    /// The latency that it must meet, as in `200ms`.
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("target must be longer than zero, as in 200ms"))]
    pub target: Duration,
}

fn eight() -> i32 {
    8
}

fn sixteen() -> i32 {
    16
}

fn ninety_five() -> i32 {
    95
}

fn five_minutes() -> Duration {
    Duration::new("5m")
}
