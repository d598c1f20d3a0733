//! How many replicas a service gets.
//!
//! Everything here is pure: no clock is read, nothing is sent, no random number is drawn that no seed was given for. The
//! autoscaler of the operator and `operator simulate` run the same code, and one crate without a runtime keeps it so
//! (docs/adr/0012).

pub mod core;
pub mod decision;
pub mod observation;
pub mod policy;
pub mod simulate;

pub use core::{Knobs, Scaler, Tuning};
pub use decision::{Decision, Reason, Terms};
pub use observation::{Load, Observation, Pods, Speed};
pub use policy::{Objective, Policy, Settings};
