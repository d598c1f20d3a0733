//! What the pod is and how far it has come: shared by what loads it and what answers for it.

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kembed_queue::{
    device::Device,
    wire::{Info, RecordedSpace, Space},
};
use prometheus_client::registry::Registry;

use crate::{
    engine::Engine,
    limits::Limits,
    metrics::{Metrics, OfStart},
    source::progress::Progress,
    space,
};

/// One process, one model.
pub struct Pod {
    /// The model as it was asked for.
    pub model: String,
    /// The model's name in answers.
    pub name: String,
    /// When the process started, in seconds since 1970.
    pub created: u64,
    /// What clients may make grow, and how far.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
    /// Where the metrics are read from.
    pub registry: Registry,
    /// How far the download is.
    pub progress: Progress,
    pinned: Option<String>,
    recorded: Option<PathBuf>,
    /// Where the pod is, and since when.
    stage: Mutex<(Stage, Instant)>,
    serving: OnceLock<Serving>,
    /// What the last check of the space found.
    mismatch: Mutex<Option<String>>,
}

/// A model that is loaded.
pub struct Serving {
    /// What embeds.
    pub engine: Engine,
    /// What it embeds into.
    pub space: Space,
    /// What it computes on beside the CPU.
    pub devices: Vec<Device>,
}

/// How far the pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The model's files are looked for and fetched.
    Fetching,
    /// The network is made from them.
    Loading,
    /// The network runs for the first time.
    Warming,
    /// Requests are answered.
    Serving,
    /// What is in hand is finished, and nothing new should come.
    Stopping,
}

impl Stage {
    /// The word for what comes before serving.
    fn of_start(self) -> Option<&'static str> {
        match self {
            Self::Fetching => Some("fetching"),
            Self::Loading => Some("loading"),
            Self::Warming => Some("warming"),
            Self::Serving | Self::Stopping => None,
        }
    }
}

/// What is named on the command line and never changes.
pub struct Identity {
    /// As [`Pod::model`].
    pub model: String,
    /// As [`Pod::name`].
    pub name: String,
    /// The digest that the space must have.
    pub pinned: Option<String>,
    /// The file that says which space the service recorded. It may appear later.
    pub recorded: Option<PathBuf>,
}

impl Pod {
    /// A pod that has not begun.
    pub fn new(identity: Identity, limits: Limits) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            model: identity.model,
            name: identity.name,
            created: since_1970.as_secs(),
            limits,
            progress: Progress::new(metrics.download.clone()),
            metrics,
            registry,
            pinned: identity.pinned,
            recorded: identity.recorded,
            stage: Mutex::new((Stage::Fetching, Instant::now())),
            serving: OnceLock::new(),
            mismatch: Mutex::new(None),
        }
    }

    /// Goes on to the next stage. Stopping is the last one.
    pub fn enter(&self, stage: Stage) {
        let mut now = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, since) = *now;
        if last == Stage::Stopping {
            return;
        }
        let took = since.elapsed().as_secs_f64();
        if let Some(stage) = last.of_start() {
            self.metrics.start.get_or_create(&OfStart { stage }).set(took);
        }
        tracing::info!(?stage, took, "next stage");
        *now = (stage, Instant::now());
    }

    /// Starts to serve, if the space is the right one; else stays unready until it is.
    pub fn serve(&self, serving: Serving) {
        if self.serving.set(serving).is_err() {
            tracing::error!("a model was loaded twice; the first one stays");
        }
        self.enter(Stage::Serving);
        if let Err(why) = self.ready() {
            tracing::error!(why, "the model is loaded and not served");
        }
    }

    /// Whether the pod should be given requests; the error is what it waits for, in words. Reads the recorded space
    /// anew.
    pub fn ready(&self) -> Result<(), String> {
        let found = self.serving.get().map(|serving| self.check_space(&serving.space));
        if let Some(found) = &found {
            *self.mismatch.lock().unwrap_or_else(PoisonError::into_inner) = found.clone().err();
        }
        self.waits_for().map_or_else(|| found.unwrap_or(Ok(())), Err)
    }

    /// The model, to embed with.
    ///
    /// # Errors
    /// What the pod waits for, in words.
    pub fn serving(&self) -> Result<&Serving, String> {
        match self.serving.get() {
            None => Err(self.waits_for().unwrap_or_else(|| "the model is being loaded".into())),
            Some(serving) => {
                let mismatch = self.mismatch.lock().unwrap_or_else(PoisonError::into_inner).clone();
                mismatch.map_or(Ok(serving), Err)
            }
        }
    }

    /// What `/info` tells, once the model is loaded, right space or not.
    pub fn info(&self) -> Option<Info> {
        let Serving { engine, space, devices } = self.serving.get()?;
        Some(Info {
            model_id: self.model.clone(),
            model_sha: space.revision.clone(),
            max_input_length: space.max_tokens,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            space: space.clone(),
            tokens_per_second: Some(engine.load().rate).filter(|rate| *rate > 0),
            devices: devices.clone(),
        })
    }

    /// The loaded model, right space or not.
    pub fn engine(&self) -> Option<&Engine> {
        self.serving.get().map(|serving| &serving.engine)
    }

    /// The space that the service recorded, if it has.
    ///
    /// # Errors
    /// If the file is there and cannot be read, in words.
    pub fn recorded_space(&self) -> Result<Option<RecordedSpace>, String> {
        let Some(path) = &self.recorded else { return Ok(None) };
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| format!("the recorded space in {} is damaged: {e}", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("failed to read the recorded space from {}: {e}", path.display())),
        }
    }

    fn check_space(&self, own: &Space) -> Result<(), String> {
        let recorded = self.recorded_space()?;
        space::compare(own, self.pinned.as_deref(), recorded.as_ref()).map_err(|e| e.to_string())
    }

    fn waits_for(&self) -> Option<String> {
        match self.stage.lock().unwrap_or_else(PoisonError::into_inner).0 {
            Stage::Fetching => Some(self.progress.to_string()),
            Stage::Loading => Some("loading the model".into()),
            Stage::Warming => Some("warming up".into()),
            Stage::Serving => None,
            Stage::Stopping => Some("stopping".into()),
        }
    }
}
