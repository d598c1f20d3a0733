//! What all distant sources have in common: they list files and open them.

use std::collections::BTreeSet;

use axum::body::Bytes;
use futures::stream::BoxStream;

use super::{SourceError, check::Check, hub::Hub, objects::Objects, web::Web};

/// A distant source, at one state of it.
pub(super) enum Remote {
    Hub { hub: Hub, commit: String, files: BTreeSet<String> },
    Objects(Objects),
    Web(Web),
}

/// A file that is about to come.
pub(super) struct Opened {
    /// The byte with which it begins.
    pub(super) at: u64,
    /// Bytes of the whole file, if the source says so.
    pub(super) total: Option<u64>,
    pub(super) check: Check,
    /// `None` if everything came before.
    pub(super) body: Option<Body>,
}

/// What comes, in pieces.
pub(super) type Body = BoxStream<'static, Result<Bytes, SourceError>>;

impl Opened {
    /// Nothing is left behind byte `from`, or less is there than was thought.
    pub(super) fn nothing(from: u64) -> Self {
        Self { at: from, total: None, check: Check::None, body: None }
    }
}

impl Remote {
    pub(super) async fn open(&self, file: &str, from: u64) -> Result<Opened, SourceError> {
        match self {
            Self::Hub { hub, commit, .. } => hub.open(commit, file, from).await,
            Self::Objects(objects) => objects.open(file, from).await,
            Self::Web(web) => web.open(file, from).await,
        }
    }

    /// Whether there is such a file.
    pub(super) async fn has(&self, file: &str) -> Result<bool, SourceError> {
        match self {
            Self::Hub { files, .. } => Ok(files.contains(file)),
            Self::Objects(objects) => Ok(objects.has(file)),
            Self::Web(web) => web.has(file).await,
        }
    }
}
