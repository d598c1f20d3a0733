//! The device each pod needs.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The device each pod needs: exactly one of the members.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.resource)")
    .message("accelerator needs a member that says how to get the device: resource, as in {resource: {name: nvidia.com/gpu}}"))]
pub struct Accelerator {
    /// A device that a device plugin offers as a resource of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<AcceleratorResource>,
}

/// A resource of nodes, as a device plugin advertises it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorResource {
    /// Name of the resource, as in `nvidia.com/gpu`.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')")
        .message("a device resource is written vendor-domain/name, as in nvidia.com/gpu"))]
    pub name: String,

    /// How many of them a pod needs.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 1").message("a pod needs at least one device: write count: 1, or leave accelerator out to run on CPUs"))]
    pub count: i32,
}

fn one() -> i32 {
    1
}
