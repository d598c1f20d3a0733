//! How far the download is: for whoever asks, and every few seconds in the log.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;

/// Between two lines of the log.
const EVERY: Duration = Duration::from_secs(5);

/// One file after another.
pub struct Progress {
    bytes: Counter,
    now: Mutex<Now>,
}

enum Now {
    /// In words.
    Doing(String),
    Fetching {
        file: String,
        done: u64,
        total: u64,
        came: u64,
        since: Instant,
        told: Instant,
    },
}

impl Progress {
    /// Nothing yet. `bytes` counts what comes.
    pub fn new(bytes: Counter) -> Self {
        Self { bytes, now: Mutex::new(Now::Doing("starting".into())) }
    }

    /// What is being done, in words.
    pub fn doing(&self, what: impl Into<String>) {
        *self.lock() = Now::Doing(what.into());
    }

    /// A file begins to come, of whose `total` bytes `done` came before.
    pub fn begin(&self, file: &str, done: u64, total: u64) {
        let since = Instant::now();
        *self.lock() = Now::Fetching { file: file.to_owned(), done, total, came: 0, since, told: since };
    }

    /// So many bytes of it came.
    pub fn came(&self, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
        let mut now = self.lock();
        if let Now::Fetching { done, came, told, .. } = &mut *now {
            (*done, *came) = (*done + bytes as u64, *came + bytes as u64);
            if told.elapsed() >= EVERY {
                *told = Instant::now();
                tracing::info!("{now}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doing(what) => f.write_str(what),
            Self::Fetching { file, done, total, came, since, .. } => {
                let mega = |bytes: u64| bytes as f64 / 1e6;
                let percent = 100 * done / (*total).max(1);
                let speed = mega(*came) / since.elapsed().as_secs_f64().max(1e-3);
                let (done, total) = (mega(*done), mega(*total));
                write!(f, "fetching {file}: {percent} %, {done:.1} of {total:.1} MB, {speed:.1} MB/s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_file_share_and_speed() {
        let bytes = Counter::default();
        let progress = Progress::new(bytes.clone());
        assert_eq!(progress.to_string(), "starting");
        progress.begin("model.safetensors", 20_000_000, 90_000_000);
        progress.came(25_000_000);
        let text = progress.to_string();
        assert!(text.starts_with("fetching model.safetensors: 50 %, 45.0 of 90.0 MB, "), "{text}");
        assert_eq!(bytes.get(), 25_000_000);
    }
}
