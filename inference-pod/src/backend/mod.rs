//! What runs a network: one file a kind.

pub mod headed;
mod int8;
mod norm;
pub mod onnx;
pub mod operators;
mod shared;

use kembed_queue::Lengths;

use crate::batch::row::Row;

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
