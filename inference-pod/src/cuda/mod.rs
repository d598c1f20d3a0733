//! Networks on NVIDIA GPUs.

pub mod driver;
pub mod fault;
pub mod pipeline;
pub mod probe;
