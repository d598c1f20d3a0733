//! Where a model's files come from, and how they come to be on this machine: whole, verified, and each fetched once.

mod cache;
mod check;
mod connector;
mod fetch;
mod http;
mod hub;
mod listing;
pub mod location;
mod objects;
pub mod progress;
mod remote;
mod retry;
mod snapshot;
mod variables;
mod web;

use std::{io, path::PathBuf};

use kembed_queue::wire::FailureReason;

pub use self::{location::Location, retry::Retry, snapshot::Snapshot, variables::Variables};
use crate::model::ModelError;

/// How to read from distant sources.
#[derive(Clone)]
pub struct Access {
    /// Where files are kept.
    pub cache: PathBuf,
    /// Bytes that a model may take there, where that is less than there is room for: Kubernetes ends pods whose volume
    /// has more than its limit, and the file system knows of no such limit.
    pub limit: Option<u64>,
    /// Address of the model hub.
    pub hub: String,
    /// The token for it.
    pub hub_token: Option<String>,
    /// What object stores need to know.
    pub variables: Variables,
    /// How often what fails is tried again.
    pub retry: Retry,
}

/// Why the files of a model are not there. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source has no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The source wants credentials and was given none.
    #[error("{0}")]
    CredentialsMissing(String),
    /// The source was given credentials and refused them.
    #[error("{0}")]
    CredentialsRefused(String),
    /// The source does not answer as it should. This may pass.
    #[error("{0}")]
    Unreachable(String),
    /// What came is not what the source says it has. This may pass.
    #[error("{file} came damaged: the source has {told}, and {came} came")]
    Damaged {
        /// Which file.
        file: String,
        /// Hash or length by the source.
        told: String,
        /// Hash or length of what came.
        came: String,
    },
    /// A file that should be small is not.
    #[error("{file} has more than the {limit} bytes that such a file may have")]
    TooLarge {
        /// Which file.
        file: String,
        /// Bytes allowed.
        limit: u64,
    },
    /// The cache has no room.
    #[error("there is no room left in the cache {0}")]
    Full(PathBuf),
    /// The cache may not hold so much.
    #[error("the cache may hold {limit} bytes, and with {file} the model has {needed}")]
    OverLimit {
        /// The file that is too much.
        file: String,
        /// Bytes allowed.
        limit: u64,
        /// Bytes of it and what came before it, or of what came of it so far.
        needed: u64,
    },
    /// The cache cannot be used.
    #[error("failed to use {path}; name another place with --cache-dir")]
    Cache {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No request can be made at all.
    #[error("{0}")]
    Client(String),
    /// The source has no model that can be served.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl SourceError {
    /// The bounded reason.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::NotFound(_) => FailureReason::ModelNotFound,
            Self::CredentialsMissing(_) => FailureReason::CredentialsMissing,
            Self::CredentialsRefused(_) => FailureReason::CredentialsRefused,
            Self::Unreachable(_) => FailureReason::SourceUnreachable,
            Self::Damaged { .. } | Self::TooLarge { .. } => FailureReason::ModelInvalid,
            Self::Full(_) | Self::OverLimit { .. } => FailureReason::CacheFull,
            Self::Cache { .. } | Self::Client(_) => FailureReason::StartFailed,
            Self::Model(error) => error.reason(),
        }
    }

    /// Whether it is worth trying again.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Damaged { .. })
    }

    /// What went wrong with a file of the cache.
    fn cache(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Cache { path, source },
        }
    }
}
