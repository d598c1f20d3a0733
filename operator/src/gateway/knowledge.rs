//! The directory as tasks share it.

use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

use super::{directory::Directory, metrics::Metrics};

/// A [`Directory`] that watches and probes write and requests read.
pub struct Knowledge {
    directory: RwLock<Directory>,
    changed: watch::Sender<()>,
    metrics: Metrics,
}

impl Knowledge {
    /// Knows nothing yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { directory: RwLock::default(), changed: watch::Sender::new(()), metrics }
    }

    /// Looks something up. Others wait meanwhile, so `look` must be short.
    pub fn read<R>(&self, look: impl FnOnce(&Directory) -> R) -> R {
        // A panic in an update leaves at worst the view of one service behind the news.
        look(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in news.
    pub fn update(&self, learn: impl FnOnce(&mut Directory)) {
        let (services, pods) = {
            let mut directory = self.directory.write().unwrap_or_else(PoisonError::into_inner);
            learn(&mut directory);
            directory.counts()
        };
        self.metrics.known(services, pods);
        self.changed.send_replace(());
    }

    /// Tells of each change from now on.
    pub fn news(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
