//! The order of requests, and what gateway, controller and inference pod tell each other.
//!
//! Everything here is pure: no clock is read, nothing is sent, no random number is drawn. The gateway and the
//! inference pod use the same queue; the controller reads the same words from a pod that the pod writes.

pub mod credit;
pub mod lanes;
pub mod rate;
pub mod wire;

pub use lanes::{Bounds, Budget, Entry, Load, Queue, Refusal, Taken};
pub use rate::{Rate, Work};
