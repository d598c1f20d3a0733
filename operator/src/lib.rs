//! The kembed operator: one program, of which the cluster runs two parts.

pub mod apikey;
pub mod autoscaler;
pub mod cli;
pub mod controller;
pub mod gateway;
pub mod simulate;

mod pauses;

#[cfg(test)]
mod documentation;
