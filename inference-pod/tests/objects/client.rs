//! A pod's cache and what it knows.

use std::time::Duration;

use inference_pod::source::{Access, Location, Retry, Snapshot, SourceError, Variables, progress::Progress};
use kembed_queue::wire::FailureReason;

pub const WEIGHTS: &str = "model.safetensors";

pub struct Client {
    pub cache: tempfile::TempDir,
    pub access: Access,
    pub progress: Progress,
}

/// Variables by their names.
pub fn variables(all: &[(&str, &str)]) -> Variables {
    Variables::of(all.iter().map(|&(name, value)| (name.into(), value.into())))
}

impl Client {
    pub fn new(variables: Variables) -> Self {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let instant = Duration::from_millis(1);
        let access = Access {
            cache: cache.path().into(),
            limit: None,
            hub: "http://unused".into(),
            hub_token: None,
            variables,
            retry: Retry { tries: 3, first: instant, longest: instant },
        };
        Self { cache, access, progress: Progress::new(Default::default()) }
    }

    pub async fn open(&self, model: &str, recorded: Option<&str>) -> Result<Snapshot, SourceError> {
        let location = Location::parse(model).expect("a good location");
        Snapshot::open(&location, None, recorded, self.access.clone(), &self.progress).await
    }

    /// Fetches these files of a model as a pod does, and compares them.
    pub async fn fetch(
        &self,
        model: &str,
        recorded: Option<&str>,
        files: &[(&str, Vec<u8>)],
    ) -> Result<Snapshot, SourceError> {
        let mut snapshot = self.open(model, recorded).await?;
        for (name, bytes) in files {
            let path = snapshot.file(name, &self.progress).await?;
            assert!(std::fs::read(path).expect("it can be read") == *bytes, "{name} is another");
        }
        snapshot.seal()?;
        Ok(snapshot)
    }

    pub async fn reason(&self, model: &str) -> (FailureReason, String) {
        let error = self.fetch(model, None, &crate::support::small_model()).await.err().expect("it fails");
        (error.reason(), error.to_string())
    }
}
