//! What a model's own files say about how texts become vectors.

pub mod config;
pub mod dense;
pub mod digest;
pub mod files;
pub mod graph;
pub mod modules;
pub mod parts;
pub mod precision;
pub mod prompts;
pub mod recipe;
pub mod weights;

pub use config::Config;
pub use precision::{Numbers, Precision};
pub use recipe::{Overrides, Recipe};

use kembed_queue::wire::FailureReason;

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file is damaged, incomplete or contradicts another.
    #[error("{file}: {what}")]
    Invalid {
        /// Which file.
        file: String,
        /// What is wrong in it.
        what: String,
    },
    /// The file that was asked for is not in the model.
    #[error("the model has no file {0}")]
    NoSuchFile(String),
    /// The model is of a kind that this program cannot run.
    #[error("this model is not supported: {0}")]
    Unsupported(String),
    /// A file cannot be read from disk.
    #[error("failed to read {file}")]
    Read {
        /// Which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ModelError {
    /// The file `file` is wrong: `what`.
    pub fn invalid(file: &str, what: impl ToString) -> Self {
        Self::Invalid { file: file.to_owned(), what: what.to_string() }
    }

    /// The bounded reason.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Invalid { .. } | Self::Read { .. } => FailureReason::ModelInvalid,
            Self::NoSuchFile(_) => FailureReason::ModelNotFound,
            Self::Unsupported(_) => FailureReason::ModelUnsupported,
        }
    }
}
