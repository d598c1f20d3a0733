//! From a model's name to a model that serves, step by step.

use std::path::PathBuf;

use kembed_queue::wire::Space;
use ort::environment::Environment;
use tokio::sync::oneshot;

use crate::{
    backend::{
        Backend,
        onnx::{Graph, Onnx, load_library},
    },
    batch::{Batcher, Ended, pad::Padded},
    config::LoadConfig,
    engine::Engine,
    export::export,
    model::{
        ModelError, Recipe,
        digest::{Parts, digest},
        files::{self, Network},
        modules::{self, Module},
        recipe::Texts,
        weights::Weights,
    },
    pod::{Pod, Serving, Stage},
    source::{Snapshot, SourceError},
    start::StartError,
    tokenise::Tokeniser,
};

/// Loads the model of a pod. The receiver tells how the network's thread ended.
///
/// # Errors
/// If it cannot be had or cannot be served.
pub async fn load(
    config: LoadConfig,
    threads: usize,
    pod: &Pod,
) -> Result<(Serving, oneshot::Receiver<Ended>), StartError> {
    let LoadConfig { location, file, access, overrides, onnxruntime } = config;
    // Before anything large is fetched.
    let environment = blocking(move || Ok(load_library(&onnxruntime)?)).await?;
    let recorded = pod.recorded_space().map_err(StartError::Recorded)?.and_then(|space| space.revision);
    let progress = &pod.progress;
    let mut model = Snapshot::open(&location, file.as_deref(), recorded.as_deref(), access, progress).await?;
    let read = Read::from(&mut model, pod).await?;
    let recipe = Recipe::read(read.texts(), &overrides)?;
    let tokeniser = Tokeniser::new(read.tokenizer.as_bytes(), recipe.max_tokens, recipe.lower_case)?;
    let network = model.network.clone();
    let path = model.file(network.file(), progress).await?;
    pod.enter(Stage::Loading);
    let hashes = [network.file(), files::TOKENIZER, files::CONFIG];
    let mut sha256 = Vec::with_capacity(hashes.len());
    for name in hashes {
        sha256.push(model.sha256(name, progress).await?);
    }
    model.seal()?;
    let digest = digest(&Parts::new(&recipe, &sha256[0], &sha256[1], &sha256[2]));
    let made = Made { network, path, environment, threads, recipe, tokeniser };
    let (backend, made) = blocking(move || made.backend()).await?;
    pod.enter(Stage::Warming);
    let (backend, dimension, made) = blocking(move || made.warm_up(backend)).await?;
    let space = Space {
        digest,
        revision: model.revision.clone(),
        dimension: dimension as u32,
        max_tokens: made.recipe.max_tokens as u32,
    };
    tracing::info!(digest = space.digest, revision = space.revision, dimension, "the model is loaded");
    let (engine, ended) = made.engine(backend, dimension, pod)?;
    Ok((Serving { engine, space }, ended))
}

/// The small files of a model.
struct Read {
    config: String,
    tokenizer: String,
    modules: Option<String>,
    pooling: Option<(String, String)>,
    sentence_bert: Option<String>,
    sentence_transformers: Option<String>,
    tokenizer_config: Option<String>,
}

impl Read {
    async fn from(model: &mut Snapshot, pod: &Pod) -> Result<Self, SourceError> {
        let progress = &pod.progress;
        let missing = |name: &str| SourceError::NotFound(format!("the model has no {name}"));
        let config = model.text(files::CONFIG, progress).await?.ok_or_else(|| missing(files::CONFIG))?;
        let modules = model.text(files::MODULES, progress).await?;
        let mut pooling = None;
        for module in modules.as_deref().map(modules::parse).transpose()?.iter().flatten() {
            if let Some(file) = Module::config_file(module) {
                pooling = model.text(&file, progress).await?.map(|text| (file, text));
            }
        }
        Ok(Self {
            config,
            modules,
            pooling,
            tokenizer: model
                .text(files::TOKENIZER, progress)
                .await?
                .ok_or_else(|| missing(files::TOKENIZER))?,
            sentence_bert: model.text(files::SENTENCE_BERT, progress).await?,
            sentence_transformers: model.text(files::SENTENCE_TRANSFORMERS, progress).await?,
            tokenizer_config: model.text(files::TOKENIZER_CONFIG, progress).await?,
        })
    }

    fn texts(&self) -> Texts<'_> {
        Texts {
            config: &self.config,
            modules: self.modules.as_deref(),
            pooling: self.pooling.as_ref().map(|(name, text)| (name.as_str(), text.as_str())),
            sentence_bert: self.sentence_bert.as_deref(),
            sentence_transformers: self.sentence_transformers.as_deref(),
            tokenizer_config: self.tokenizer_config.as_deref(),
        }
    }
}

/// Everything that an engine is made of, but for the network.
struct Made {
    network: Network,
    path: PathBuf,
    environment: Environment,
    threads: usize,
    recipe: Recipe,
    tokeniser: Tokeniser,
}

impl Made {
    fn backend(self) -> Result<(Box<dyn Backend>, Self), StartError> {
        let graph = match &self.network {
            Network::Safetensors(_) => Graph::Made(export(&self.recipe, &Weights::open(&[&self.path])?)?),
            Network::Onnx(_) => Graph::Shipped(self.path.clone()),
        };
        let backend = Onnx::new(&self.environment, graph, self.recipe.pooling, self.threads)?;
        Ok((Box::new(backend), self))
    }

    /// Runs a short and a longest input, so that the first clients do not wait for memory. Tells the dimension.
    fn warm_up(self, mut backend: Box<dyn Backend>) -> Result<(Box<dyn Backend>, usize, Self), StartError> {
        let short =
            self.tokeniser.ids("", "warm up").map_err(|e| ModelError::invalid(files::TOKENIZER, e))?;
        let long: Vec<u32> = short.iter().copied().cycle().take(self.recipe.max_tokens).collect();
        let mut dimension = 0;
        for ids in [long, short] {
            let vectors = backend.run(&Padded::new([ids.as_slice()].into_iter(), self.filler()));
            dimension = vectors.map_err(StartError::WarmUp)?.first().map_or(0, Vec::len);
        }
        Ok((backend, dimension, self))
    }

    fn engine(
        self,
        backend: Box<dyn Backend>,
        dimension: usize,
        pod: &Pod,
    ) -> Result<(Engine, oneshot::Receiver<Ended>), StartError> {
        let (filler, metrics) = (self.filler(), pod.metrics.clone());
        let (batcher, ended) =
            Batcher::start(backend, filler, pod.limits, metrics.clone()).map_err(StartError::System)?;
        Ok((Engine::new(self.recipe, self.tokeniser, batcher, dimension, pod.limits, metrics), ended))
    }

    fn filler(&self) -> u32 {
        self.recipe.config.pad_token_id.unwrap_or(0)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StartError::Panicked("loading the model")))
}
