//! The root of the API.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Accelerator, EmbeddingServiceStatus, Model, PodTemplate, Rollout, Scaling, Traffic};

/// In CEL: once a space is recorded, no field that defines it changes.
const SPACE_IS_FIXED: &str = "!has(oldSelf.status) || !has(oldSelf.status.space) || (\
    self.spec.model.uri == oldSelf.spec.model.uri && \
    (has(self.spec.model.file) ? self.spec.model.file : '') == \
        (has(oldSelf.spec.model.file) ? oldSelf.spec.model.file : '') && \
    (has(self.spec.model.maxTokens) ? self.spec.model.maxTokens : 0) == \
        (has(oldSelf.spec.model.maxTokens) ? oldSelf.spec.model.maxTokens : 0) && \
    self.spec.model.pooling == oldSelf.spec.model.pooling && \
    self.spec.model.normalization == oldSelf.spec.model.normalization && \
    self.spec.model.precision == oldSelf.spec.model.precision && \
    (has(self.spec.model.prompts) && has(self.spec.model.prompts.query) ? self.spec.model.prompts.query : '') == \
        (has(oldSelf.spec.model.prompts) && has(oldSelf.spec.model.prompts.query) ? oldSelf.spec.model.prompts.query : '') && \
    (has(self.spec.model.prompts) && has(self.spec.model.prompts.document) ? self.spec.model.prompts.document : '') == \
        (has(oldSelf.spec.model.prompts) && has(oldSelf.spec.model.prompts.document) ? oldSelf.spec.model.prompts.document : ''))";

/// In CEL: a digest that is set after a space was recorded is that space's.
const PIN_IS_THE_RECORD: &str = "!has(self.status) || !has(self.status.space) || !has(self.spec.model.digest) || \
    self.spec.model.digest == self.status.space.digest || \
    (has(oldSelf.spec.model.digest) && self.spec.model.digest == oldSelf.spec.model.digest)";

/// What to serve, on what, and how it scales.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kembed.dev",
    version = "v1alpha1",
    kind = "EmbeddingService",
    plural = "embeddingservices",
    shortname = "emb",
    category = "kembed",
    namespaced,
    status = "EmbeddingServiceStatus",
    derive = "PartialEq",
    doc = "An embedding model, served by pods of this cluster behind one address.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.uri"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.scaling.minReplicas", priority = 1),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.scaling.maxReplicas", priority = 1),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".status.scaling.reason", priority = 1),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.conditions[?(@.type=='AcceleratorVerified')].status", priority = 1),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.space.revision", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("metadata.name becomes a host name: use at most 40 lower-case letters, digits and '-', begin with a letter, end with a letter or digit"),
    validation = Rule::new(SPACE_IS_FIXED)
    .message("spec.model cannot change once its vector space is recorded in status.space, for the new vectors would not be comparable with the old: create a second EmbeddingService and re-index"),
    validation = Rule::new(PIN_IS_THE_RECORD)
    .message("spec.model.digest can only be set to the digest recorded in status.space: copy it from there, or create a second EmbeddingService"),
)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddingServiceSpec {
    /// The model, and everything that decides what its vectors are.
    pub model: Model,

    /// The device each pod needs. Without it pods run on CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,

    /// How many pods serve the model. You, an HPA or KEDA write it, directly or through the scale subresource. 0 is
    /// off, and requests are refused at once; with `scaling` it is asleep, and the first request for vectors makes it 1.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self >= 0").message("replicas counts pods: write 0 or more"))]
    pub replicas: i32,

    /// The objective that the count is meant to keep, and its bounds. With it kembed writes `replicas`, and nobody else
    /// should. When somebody asks for vectors while it is 0, it becomes 1, and who asks waits for that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,

    /// Limits on requests, and who may send them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,

    /// How pods are replaced when the spec changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,

    /// What to add to the pods: resources, placement, volumes, environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

fn one() -> i32 {
    1
}
