//! From a model's name to a model that serves, step by step.

mod gpus;

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kembed_queue::{Rate, device::Device, wire::Space};
use ort::environment::Environment;
use tokio::sync::oneshot;

use self::gpus::Gpus;
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
        ModelError, Numbers, Recipe,
        dense::Dense,
        digest::{Parts, digest, joined},
        files::{self, Network},
        graph::Shipped,
        modules, parts,
        recipe::Texts,
        weights::Weights,
    },
    pod::{Pod, Serving, Stage},
    source::{Snapshot, SourceError, progress::Progress},
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

/// The small files of a model.
struct Read {
    config: String,
    tokenizer: String,
    modules: Option<String>,
    steps: Vec<(String, String)>,
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
        let mut steps = Vec::new();
        for module in modules.as_deref().map(modules::parse).transpose()?.iter().flatten() {
            if let Some(file) = module.config_file() {
                steps.extend(model.text(&file, progress).await?.map(|text| (file, text)));
            }
        }
        Ok(Self {
            config,
            modules,
            steps,
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
            steps: &self.steps,
            sentence_bert: self.sentence_bert.as_deref(),
            sentence_transformers: self.sentence_transformers.as_deref(),
            tokenizer_config: self.tokenizer_config.as_deref(),
        }
    }
}

/// The large files of a model.
struct Paths {
    kind: Network,
    /// What its products are made of.
    numbers: Numbers,
    /// All of them, as they are called in the model.
    names: Vec<String>,
    /// Of the weights, or of the graph and what it refers to.
    paths: Vec<PathBuf>,
    /// Of the weights of dense layers.
    dense: Vec<PathBuf>,
}

impl Paths {
    /// Brings them.
    async fn fetch(model: &mut Snapshot, recipe: &Recipe, progress: &Progress) -> Result<Self, StartError> {
        let kind = model.network.clone();
        let first = kind.file().to_owned();
        let mut numbers = Numbers::from(recipe.precision);
        let mut names = match &kind {
            Network::Safetensors(index) if files::is_index(index) => {
                let lost = || ModelError::NoSuchFile(index.clone());
                let text = model.text(index, progress).await?.ok_or_else(lost)?;
                parts::of_index(index, &text)?.into_iter().collect()
            }
            Network::Safetensors(_) => vec![first],
            Network::Onnx(_) => {
                let path = model.file(&first, progress).await?;
                let name = first.clone();
                let shipped = blocking(move || Ok(shipped(&name, &path)?)).await?;
                numbers = shipped.numbers;
                [first].into_iter().chain(shipped.files).collect()
            }
        };
        let of_network = names.len();
        names.extend(recipe.dense.iter().map(Dense::file));
        let mut paths = Vec::with_capacity(names.len());
        for name in &names {
            if !model.has(name).await? {
                return Err(ModelError::NoSuchFile(name.clone()).into());
            }
            paths.push(model.file(name, progress).await?);
        }
        let dense = paths.split_off(of_network);
        Ok(Self { kind, numbers, names, paths, dense })
    }

    async fn sha256(&self, model: &mut Snapshot, progress: &Progress) -> Result<Vec<String>, SourceError> {
        let mut hashes = Vec::with_capacity(self.names.len());
        for name in &self.names {
            hashes.push(model.sha256(name, progress).await?);
        }
        Ok(hashes)
    }
}

fn shipped(name: &str, path: &Path) -> Result<Shipped, ModelError> {
    let file = File::open(path).map_err(|source| ModelError::Read { file: name.to_owned(), source })?;
    Shipped::read(name, &mut BufReader::new(file))
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
