//! What kembed does for one EmbeddingService, on a real cluster. Each test has a namespace of its own, and all run at
//! the same time.

mod autoscaling;
mod bucket;
mod claim;
mod conflict;
mod crashing;
mod deletion;
mod failures;
mod healing;
mod image_volume;
mod ingress;
mod install;
mod lanes;
mod revision;
mod rollout;
mod routes;
mod scaling;
mod serving;
mod shipped;
mod survival;
mod traces;
mod validation;
mod waking;
