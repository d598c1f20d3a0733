//! From a model's name to a model that serves, step by step.

mod fetched;
mod gpus;

use std::time::{Duration, Instant};

use kembed_queue::{Rate, device::Device, wire::Space};
use ort::environment::Environment;
use tokio::sync::oneshot;

use self::{
    fetched::{Paths, Read},
    gpus::Gpus,
};
use crate::{
    backend::{
        Backend,
        headed::Headed,
        onnx::{Graph, Onnx, Output, load_library},
    },
    batch::{Batcher, Ended, row::Row},
    config::LoadConfig,
    engine::Engine,
    export::export,
    head::Layer,
    limits::Limits,
    model::{
        ModelError, Recipe,
        digest::{Parts, digest, joined},
        files::{self, Network},
        weights::Weights,
    },
    pod::{Pod, Serving, Stage},
    source::Snapshot,
    start::StartError,
    tokenise::{Cut, TokeniseError, Tokeniser},
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
    let LoadConfig { location, file, access, overrides, onnxruntime, accelerator } = config;
    let gpus = match accelerator {
        Some(accelerator) => Some(blocking(move || Gpus::find(accelerator)).await?),
        None => None,
    };
    // Before anything large is fetched.
    let environment = blocking(move || Ok(load_library(&onnxruntime)?)).await?;
    let recorded = pod.recorded_space().map_err(StartError::Recorded)?.and_then(|space| space.revision);
    let progress = &pod.progress;
    let mut model = Snapshot::open(&location, file.as_deref(), recorded.as_deref(), access, progress).await?;
    let read = Read::from(&mut model, pod).await?;
    let recipe = Recipe::read(read.texts(), &overrides)?;
    model.network.check(recipe.precision)?;
    let tokeniser = Tokeniser::new(read.tokenizer.as_bytes(), recipe.max_tokens, recipe.lower_case)?;
    let network = Paths::fetch(&mut model, &recipe, progress).await?;
    pod.enter(Stage::Loading);
    let of_network = joined(&network.sha256(&mut model, progress).await?);
    let of_tokenizer = model.sha256(files::TOKENIZER, progress).await?;
    let of_config = model.sha256(files::CONFIG, progress).await?;
    model.seal()?;
    let digest = digest(&Parts::new(&recipe, &of_network, &of_tokenizer, &of_config));
    let made = Made { network, environment, threads, recipe, tokeniser };
    let (mut ready, made) = match gpus {
        None => made.on_cpu(pod).await?,
        Some(gpus) => {
            pod.enter(Stage::Warming);
            let limits = pod.limits;
            let sensors = pod.metrics.sensors.clone();
            blocking(move || {
                gpus.watch(sensors);
                Ok((gpus.ready(&made, limits)?, made))
            })
            .await?
        }
    };
    let dimension = ready.warm.dimension;
    let space = Space {
        digest,
        revision: model.revision.clone(),
        dimension: dimension as u32,
        max_tokens: made.recipe.max_tokens as u32,
    };
    let (digest, revision, numbers) = (&space.digest, &space.revision, made.network.numbers.name());
    tracing::info!(digest, revision, dimension, numbers, "the model is loaded");
    let devices = std::mem::take(&mut ready.devices);
    let (engine, ended) = made.engine(ready, pod)?;
    Ok((Serving { engine, space, devices }, ended))
}

/// Everything that an engine is made of, but for what runs the network.
struct Made {
    network: Paths,
    environment: Environment,
    threads: usize,
    recipe: Recipe,
    tokeniser: Tokeniser,
}

/// What running a network for the first time shows.
struct Warm {
    /// Numbers of a vector, or labels.
    dimension: usize,
    /// How fast one thread is with a longest input.
    rate: Rate,
}

/// A run that is run again to be measured takes less than this: a pod is not late for that.
const QUICK: Duration = Duration::from_millis(250);

/// What runs the network.
struct Ready {
    backends: Vec<Box<dyn Backend>>,
    warm: Warm,
    limits: Limits,
    /// Whether it can give the vectors of tokens too.
    gives_tokens: bool,
    /// What it is, beside the CPU.
    devices: Vec<Device>,
}

impl Made {
    /// On the CPU: as many threads as there are, which run one session, so that there is one copy of the weights.
    async fn on_cpu(self, pod: &Pod) -> Result<(Ready, Self), StartError> {
        let (backend, made) = blocking(move || Ok((self.backend()?, self))).await?;
        pod.enter(Stage::Warming);
        let (backend, warm, made) = blocking(move || made.warm_up(backend)).await?;
        let backends = (0..made.threads).map(|_| Box::new(backend.clone()) as Box<dyn Backend>).collect();
        let (limits, devices) = (pod.limits, Vec::new());
        Ok((Ready { backends, warm, limits, gives_tokens: true, devices }, made))
    }

    fn backend(&self) -> Result<Headed<Onnx>, StartError> {
        let graph = match &self.network.kind {
            Network::Safetensors(_) => Graph::Made(export(&self.recipe, &self.weights()?)?),
            Network::Onnx(_) => Graph::Shipped(self.network.paths[0].clone()),
        };
        let backend = Onnx::new(&self.environment, graph, self.output(), self.filler())?;
        Ok(Headed::new(backend, self.layers()?))
    }

    /// What its graph for CPUs gives.
    fn output(&self) -> Output {
        match self.recipe.labels {
            None => Output::Pooled(self.recipe.pooling),
            Some(_) => Output::Scores,
        }
    }

    /// Refuses numbers of other labels than the model names.
    fn check_labels(&self, numbers: usize) -> Result<(), ModelError> {
        match &self.recipe.labels {
            Some(labels) if labels.len() != numbers => {
                let what = format!("it names {} labels, and the network has {numbers}", labels.len());
                Err(ModelError::invalid(files::CONFIG, what))
            }
            _ => Ok(()),
        }
    }

    /// The weights of the network, if it is not a graph.
    fn weights(&self) -> Result<Weights, ModelError> {
        match &self.network.kind {
            Network::Safetensors(_) => Weights::open(&self.network.paths),
            Network::Onnx(file) => Err(ModelError::Unsupported(format!("{file} cannot be run on a GPU yet"))),
        }
    }

    /// The layers behind its pooling.
    fn layers(&self) -> Result<Vec<Layer>, ModelError> {
        let layers = self.recipe.dense.iter().zip(&self.network.dense);
        layers.map(|(layer, path)| layer.layer(&Weights::open(&[path])?)).collect()
    }

    fn filler(&self) -> u32 {
        self.recipe.config.pad_token_id.unwrap_or(0)
    }

    /// Runs a short and a longest input, so that the first clients do not wait for memory.
    fn warm_up(self, mut backend: Headed<Onnx>) -> Result<(Headed<Onnx>, Warm, Self), StartError> {
        let (mut dimension, mut rate) = (0, Rate::default());
        let rows = self.first_rows().map_err(|e| ModelError::invalid(files::TOKENIZER, e))?;
        for (place, row) in rows.iter().enumerate() {
            let mut run = || -> Result<_, StartError> {
                let began = Instant::now();
                let vectors = backend.run(&[row]).map_err(StartError::WarmUp)?;
                Ok((vectors.first().map_or(0, Vec::len), began.elapsed()))
            };
            let (width, mut took) = run()?;
            dimension = width;
            if place == 0 {
                // The first run gets the memory too, and would make the pod seem slow.
                if took < QUICK {
                    took = run()?.1;
                }
                rate.observe(row.ids.len() as u64, took);
            }
        }
        self.check_labels(dimension)?;
        Ok((backend, Warm { dimension, rate }, self))
    }

    /// A longest input and a short one, and a pair for a model that may be given such.
    fn first_rows(&self) -> Result<Vec<Row>, TokeniseError> {
        let short = self.tokeniser.ids("", "warm up")?;
        let long = short.iter().copied().cycle().take(self.recipe.max_tokens).collect();
        let mut rows = vec![Row::new(long), Row::new(short)];
        if self.recipe.labels.is_some() {
            let (ids, types) = self.tokeniser.pairs("warm", Cut::End)?.with("up")?;
            rows.push(Row::typed(ids, types));
        }
        Ok(rows)
    }

    fn engine(self, ready: Ready, pod: &Pod) -> Result<(Engine, oneshot::Receiver<Ended>), StartError> {
        let Ready { backends, warm: Warm { dimension, rate }, limits, gives_tokens, .. } = ready;
        let metrics = pod.metrics.clone();
        let started = Batcher::start(backends, rate, limits, metrics.clone());
        let (batcher, ended) = started.map_err(StartError::System)?;
        let engine = Engine::new(self.recipe, self.tokeniser, batcher, dimension, limits, metrics);
        let engine = engine.of_numbers(self.network.numbers);
        Ok((if gives_tokens { engine } else { engine.without_tokens() }, ended))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StartError::Panicked("loading the model")))
}
