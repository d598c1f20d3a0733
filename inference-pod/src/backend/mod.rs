//! What runs a network: one file a kind.

pub mod headed;
mod int8;
mod norm;
pub mod onnx;
pub mod operators;
mod shared;

use std::time::Duration;

use kembed_queue::Lengths;

use crate::batch::row::Row;

/// How long a device took for a batch, by its own clock: what it takes until it begins, and how long we wait for it, is not in
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Which device.
    pub device: u32,
    /// Copying the input to it.
    pub copy_in: Duration,
    /// The network: from when it could begin until it was done.
    pub compute: Duration,
    /// Copying the vectors from it.
    pub copy_out: Duration,
    /// From the end of the network's last run until it could begin, if this batch came while there was another.
    pub idle: Option<Duration>,
}

/// A network on a device. One thread owns it; it need not be shared.
pub trait Backend: Send {
    /// What lengths the rows of a batch should have. It takes all others too.
    fn lengths(&self) -> Lengths {
        Lengths::Equal
    }

    /// What is wanted of each row, in order: its vector, not yet normalised, or those of its tokens. No row is empty.
    ///
    /// # Errors
    /// If the device fails.
    fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError>;

    /// How long the device took for the batch that was run last, if that was measured, and was not asked for before.
    fn took(&mut self) -> Option<Took> {
        None
    }
}

/// A batch could not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It failed; the next one may be tried.
    #[error("failed to run the network: {0}")]
    Failed(String),
    /// There was not enough memory for it, and may be for less.
    #[error("failed to run the network for want of memory: {0}")]
    OutOfMemory(String),
    /// Nothing can be run any more.
    #[error("the accelerator is lost: {0}")]
    Lost(String),
}
