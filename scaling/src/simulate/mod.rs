//! What would have happened: traffic, replayed through any policy against pods that exist in arithmetic alone.
//!
//! [`world`] plays one [`trace`] to one [`contender`], which is our own policy or one of its [`peers`], and answers its
//! [`score`]. No clock is read and nothing is drawn that no seed was given for, so the same call gives the same answer.

pub mod clairvoyant;
pub mod contender;
pub mod fleet;
pub mod generate;
pub mod meter;
pub mod peers;
pub mod pod;
pub mod random;
pub mod score;
pub mod timeline;
pub mod told;
pub mod trace;
pub mod world;

pub use contender::{Contender, Fixed, Ours, Sight};
pub use generate::Kind;
pub use pod::PodModel;
pub use score::Score;
pub use timeline::Timeline;
pub use told::Gateways;
pub use trace::{Arrival, Trace, TraceError};
pub use world::{Watch, World};
