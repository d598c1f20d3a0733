//! Our own policy.
//!
//! [`Scaler`] is one service's. Each look goes through [`look`], which lets in nothing but sane numbers; what is to be
//! remembered is remembered ([`recent`], [`history`], [`sizes`], [`correction`]); [`need`] says how many replicas that takes,
//! and [`count`] what becomes of the count: at once up, slowly down, and not at all while something stands in the way. What may
//! be tuned are [`knobs`], tuned by [`tuner`], which lets the same code live through the last hour again ([`replay`]).

mod capacity;
mod correction;
mod count;
mod erlang;
mod forecast;
mod guard;
mod history;
mod knobs;
mod look;
mod mind;
mod need;
mod peak;
mod recent;
mod replay;
mod rhythm;
mod scaler;
mod sizes;
mod trend;
mod tuner;
mod why;

pub use knobs::{Expect, Knobs};
pub use scaler::Scaler;
pub use tuner::Tuning;
