//! Limits on requests, and who may send them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Limits on requests, and who may send them.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// How long a request may wait for capacity.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s') && duration(self) <= duration('1h')")
        .message("queueTimeout must be longer than zero and at most 1h, as in 10m"))]
    pub queue_timeout: Duration,

    /// How long a request may take once a pod has it.
    #[serde(default = "thirty_seconds")]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s') && duration(self) <= duration('10m')")
        .message("requestTimeout must be longer than zero and at most 10m, as in 30s"))]
    pub request_timeout: Duration,

    /// Requests that may wait at the same time; more are refused with 429.
    #[serde(default = "ten_thousand")]
    #[x_kube(validation = Rule::new("self >= 1").message("maxQueuedRequests must be at least 1"))]
    pub max_queued_requests: i32,

    /// So many of 100 interactive requests may be given to a second pod when the first one takes longer than it does for
    /// 99 of 100: whoever answers first wins. It keeps a pod that stalls from being noticed, and costs pods as much more
    /// work. Without it: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 20").message("hedgePercent must be 1 to 20; leave it out for no hedging"))]
    pub hedge_percent: Option<i32>,

    /// Keys of which a request must carry one. Without any, the service is open to whom the network lets in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub api_keys: Vec<ApiKey>,
}

impl Default for Traffic {
    /// As the schema fills it in.
    fn default() -> Self {
        Self {
            queue_timeout: ten_minutes(),
            request_timeout: thirty_seconds(),
            max_queued_requests: ten_thousand(),
            hedge_percent: None,
            api_keys: Vec::new(),
        }
    }
}

/// A key, known by its hash alone.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Whose it is; stands in metrics.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of a key is made of lower-case letters, digits and '-'"))]
    pub name: String,

    /// SHA-256 of the key in hexadecimal digits, as from `printf %s "$KEY" | sha256sum`.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')")
        .message("sha256 is the key's hash in 64 lower-case hexadecimal digits, never the key itself: printf %s \"$KEY\" | sha256sum"))]
    pub sha256: String,

    /// Requests a second that it may send. Without it: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1").message("requestsPerSecond must be at least 1; leave it out for no limit, or remove the key"))]
    pub requests_per_second: Option<i32>,

    /// Tokens a minute that it may send. Without it: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1").message("tokensPerMinute must be at least 1; leave it out for no limit, or remove the key"))]
    pub tokens_per_minute: Option<i64>,
}

fn ten_minutes() -> Duration {
    Duration::new("10m")
}

fn thirty_seconds() -> Duration {
    Duration::new("30s")
}

fn ten_thousand() -> i32 {
    10_000
}
