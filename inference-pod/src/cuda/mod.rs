//! Networks on NVIDIA GPUs.

pub mod driver;
pub mod fault;
pub mod network;
pub mod pack;
pub mod pipeline;
pub mod probe;
