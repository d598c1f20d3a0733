//! The API of kembed: what a user applies, and what kembed answers in its status.
//!
//! The Kubernetes schema is made from these types ([`crd_yaml`]). Rules in CEL refuse at apply time what can never
//! work; each message says what to write instead. Types are lenient where the schema is strict, so that an object
//! stored by another version can still be read.

mod accelerator;
pub mod conditions;
mod duration;
mod embedding_service;
mod generate;
mod model;
mod pod_template;
mod rollout;
mod scaling;
mod status;
mod traffic;
pub mod uri;

pub use accelerator::{Accelerator, AcceleratorResource};
pub use duration::{Duration, InvalidDuration};
pub use embedding_service::{EmbeddingService, EmbeddingServiceSpec};
pub use generate::{crd, crd_yaml};
pub use model::{
    Cache, Credentials, EmptyDirCache, Model, Normalization, PersistentVolumeClaimCache, Pooling, Precision,
    Prompts,
};
pub use pod_template::PodTemplate;
pub use rollout::Rollout;
pub use scaling::{Latency, Scaling, Tuning};
pub use status::{EmbeddingServiceStatus, ScalingStatus, SpaceStatus};
pub use traffic::{ApiKey, Traffic};

/// Label on pods that names their EmbeddingService; the Deployment's selector.
pub const SERVICE_LABEL: &str = "kembed.dev/service";
/// Standard label, on everything that kembed makes.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "kembed";
