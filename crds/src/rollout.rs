//! How pods are replaced when the spec changes.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How pods are replaced when the spec changes, as in a Deployment.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
        "!(has(self.maxSurge) && has(self.maxUnavailable) && (self.maxSurge == 0 || self.maxSurge == '0%' || self.maxSurge == '0') \
         && (self.maxUnavailable == 0 || self.maxUnavailable == '0%' || self.maxUnavailable == '0'))")
    .message("maxSurge and maxUnavailable cannot both be zero, for then no pod could ever be replaced"))]
pub struct Rollout {
    /// Pods that may exist beyond the count, as a number or a percentage. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,

    /// Pods that may be missing from the count, as a number or a percentage. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}
