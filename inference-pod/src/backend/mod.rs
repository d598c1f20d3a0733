//! What runs a network: one file a kind.

pub mod headed;
mod int8;
mod norm;
pub mod onnx;
pub mod operators;
mod shared;

use crate::batch::pad::Padded;

/// A network on a device. One thread owns it; it need not be shared.
pub trait Backend: Send {
    /// What is wanted of each row, in order: its vector, not yet normalised, or those of its tokens.
    ///
    /// # Errors
    /// If the device fails. The batch is lost; the next one may be tried.
    fn run(&mut self, batch: &Padded) -> Result<Vec<Vec<f32>>, RunError>;
}

/// A batch could not be run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to run the network: {0}")]
pub struct RunError(pub String);
