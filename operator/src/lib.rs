//! The kembed operator: one program, of which the cluster runs two parts.

pub mod apikey;
pub mod autoscaler;
pub mod cli;
pub mod controller;
pub mod gateway;
pub mod publisher;
pub mod simulate;

mod api_errors;
mod pauses;

#[cfg(test)]
mod documentation;
