//! Networks on NVIDIA GPUs.

pub mod budget;
pub mod driver;
pub mod fault;
pub mod network;
pub mod pack;
pub mod parts;
pub mod pipeline;
pub mod prepare;
pub mod probe;
pub mod sensors;
pub mod warm;
