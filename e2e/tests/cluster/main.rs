//! What kembed does for one EmbeddingService, on a real cluster. Each test has a namespace of its own, and all run at
//! the same time.

mod claim;
mod conflict;
mod deletion;
mod failures;
mod healing;
mod image_volume;
mod install;
mod revision;
mod rollout;
mod scaling;
mod serving;
mod survival;
mod validation;
mod waking;
