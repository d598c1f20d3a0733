//! The order of requests, and what gateway, controller and inference pod tell each other.
//!
//! Everything here is pure: no clock is read, nothing is sent, no random number is drawn. The gateway and the
//! inference pod use the same queue; the controller reads the same words from a pod that the pod writes.

pub mod credit;
pub mod device;
pub mod dispatcher;
pub mod ejection;
pub mod estimate;
pub mod figures;
pub mod fleet;
pub mod flow;
pub mod hedge;
pub mod histogram;
pub mod lanes;
pub mod ledger;
pub mod line;
pub mod rate;
pub mod report;
pub mod retry;
pub mod tally;
pub mod wire;

pub use dispatcher::{Ask, Config, Dispatcher, Grant, News, Told};
pub use lanes::{Bounds, Budget, Entry, Lengths, Load, Queue, Refusal, Taken};
pub use ledger::PodId;
pub use line::{LineBounds, Ticket};
pub use rate::{Rate, Work};
pub use retry::{Failure, History, Past};
