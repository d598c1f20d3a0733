//! ONNX Runtime on the CPU: one session, run by as many threads as there are copies of [`Onnx`], each run on one thread.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    environment::Environment,
    logging::LogLevel,
    session::Session,
    value::{Tensor, TensorElementType, ValueType},
};

use super::{Backend, RunError, operators::operators, shared::SharedSession};
use crate::{
    batch::{
        pad::Padded,
        row::{Row, Wanted},
    },
    export::Exported,
    model::{ModelError, files::SAFETENSORS},
    pooling::{Pooling, pool},
};

/// The outputs that hold a vector a token, as exporters name them.
const HIDDEN_STATES: [&str; 2] = ["last_hidden_state", "token_embeddings"];

/// The output that holds a number for each label.
const SCORES: &str = "logits";

/// The target of ONNX Runtime's own log lines.
const TARGET: &str = "onnxruntime";

/// The network of a model.
#[derive(Debug)]
pub enum Graph {
    /// A graph in memory whose large weights lie in a folder.
    Made(Exported),
    /// A file.
    Shipped(PathBuf),
}

/// The library could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("failed to load ONNX Runtime ({0}); name the library with --onnxruntime")]
pub struct LibraryError(String);

/// Loads the library, once a process: what is asked for later is what was loaded first.
///
/// # Errors
/// If the file is missing, is no ONNX Runtime, or is too old.
pub fn load_library(path: &Path) -> Result<Environment, LibraryError> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    // A relative path means one beside the program to the loader; a person means the working directory.
    let path = std::path::absolute(path).map_err(|e| LibraryError(e.to_string()))?;
    let environment = ort::init_from(path)
        .map_err(|e| LibraryError(e.to_string()))?
        .with_name("kembed")
        .with_telemetry(false)
        .with_logger(Arc::new(|level, _, _, _, message| log(level, message)))
        .build()
        .map_err(|e| LibraryError(e.to_string()))?;
    // What nobody reads is not even put together.
    let verbose = tracing::enabled!(target: TARGET, tracing::Level::DEBUG);
    environment.set_log_level(if verbose { LogLevel::Info } else { LogLevel::Warning });
    Ok(loaded.insert(environment).clone())
}

/// What ONNX Runtime finds worth telling is of interest to those who debug it.
fn log(level: LogLevel, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: TARGET, "{message}"),
        LogLevel::Info => tracing::debug!(target: TARGET, "{message}"),
        LogLevel::Warning => tracing::warn!(target: TARGET, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: TARGET, "{message}"),
    }
}

/// A network that a thread may run. Its copies run the same session, at the same time, on a thread each.
#[derive(Clone)]
pub struct Onnx {
    session: Arc<SharedSession>,
    inputs: Arc<[Input]>,
    output: Output,
    filler: u32,
}

/// What is made of what the graph gives.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// Vectors of tokens, pooled to one.
    Pooled(Pooling),
    /// A number for each label, which it gives itself.
    Scores,
}

/// What the graph wants to know of a batch.
#[derive(Clone, Copy, PartialEq)]
enum Input {
    Ids,
    Mask,
    Types,
}

impl Onnx {
    /// Makes the session. `filler` is the token that fills short rows.
    ///
    /// # Errors
    /// If ONNX Runtime cannot run this graph, or its inputs and outputs are not those of a text encoder, with
    /// what stands behind it if it classifies.
    pub fn new(
        environment: &Environment,
        graph: Graph,
        output: Output,
        filler: u32,
    ) -> Result<Self, ModelError> {
        let file = match &graph {
            Graph::Made(_) => SAFETENSORS.to_owned(),
            Graph::Shipped(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let invalid = |e: ort::Error| {
            ModelError::invalid(&file, format!("ONNX Runtime cannot run it: {}", e.message()))
        };
        let session = session(environment, graph).map_err(invalid)?;
        let inputs = session.inputs().iter().map(|i| input(i.name(), i.dtype())).collect::<Result<_, _>>()?;
        let names = match output {
            Output::Pooled(_) => &HIDDEN_STATES[..],
            Output::Scores => &[SCORES],
        };
        let has = |name: &&str| session.outputs().iter().any(|output| output.name() == *name);
        let name = names
            .iter()
            .copied()
            .find(has)
            .ok_or_else(|| ModelError::Unsupported(format!("its graph has no output {}", names[0])))?;
        let session = Arc::new(SharedSession::new(session, name).map_err(invalid)?);
        Ok(Self { session, inputs, output, filler })
    }

    fn answers(&self, batch: &Padded) -> ort::Result<Vec<Vec<f32>>> {
        let is_padded = batch.lengths.iter().any(|&length| length != batch.columns);
        if is_padded && !self.inputs.contains(&Input::Mask) {
            return Err(ort::Error::new("its graph has no mask, and rows are of different lengths"));
        }
        let shape = [batch.rows(), batch.columns];
        let data = |input: &Input| match input {
            Input::Ids => batch.ids.clone(),
            Input::Mask => batch.mask.clone(),
            Input::Types if batch.types.is_empty() => vec![0; batch.ids.len()],
            Input::Types => batch.types.clone(),
        };
        let values = self.inputs.iter().map(|input| Tensor::from_array((shape, data(input))));
        self.session.run(&values.collect::<ort::Result<Vec<_>>>()?, |output| {
            let (shape, numbers) = output.try_extract_tensor::<f32>()?;
            match (self.output, &**shape) {
                (Output::Pooled(pooling), &[_, _, dimension]) => {
                    Ok(vectors(batch, pooling, numbers, dimension as usize))
                }
                (Output::Scores, &[_, labels]) => {
                    Ok(numbers.chunks(labels.max(1) as usize).map(<[f32]>::to_vec).collect())
                }
                _ => Err(ort::Error::new(format!("the output is of shape {shape:?}"))),
            }
        })
    }
}

impl Backend for Onnx {
    fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
        let batch = Padded::new(batch.iter().copied(), self.filler);
        self.answers(&batch).map_err(|e| RunError::Failed(e.message().to_owned()))
    }
}

/// What is wanted of each row, from the vectors of its tokens.
fn vectors(batch: &Padded, pooling: Pooling, hidden: &[f32], dimension: usize) -> Vec<Vec<f32>> {
    let rows = hidden.chunks(batch.columns * dimension).zip(&batch.lengths).zip(&batch.wanted);
    let wanted = rows.map(|((row, &length), wanted)| match wanted {
        Wanted::One => pool(pooling, row, length, dimension),
        Wanted::Tokens => row[..length * dimension].to_vec(),
    });
    wanted.collect()
}

/// Builder errors carry the builder, which cannot cross threads: they are made plain inside.
fn session(environment: &Environment, graph: Graph) -> ort::Result<Session> {
    // ONNX Runtime looks whether it knows the domain of our operators and then adds it, without a lock: of two sessions that
    // are made at once one could fail for that.
    static MADE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let builder = Session::builder(environment)?
        // A run stays on the thread that asks for it: the session has no threads of its own.
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        // Shapes change with each batch, so that a plan for one shape is of no use.
        .with_memory_pattern(false)?;
    match graph {
        // It may be one that was exported here, and has all of our operators but those of rounded weights.
        Graph::Shipped(path) => builder.with_operators(operators(Arc::default())?)?.commit_from_file(path),
        Graph::Made(exported) => builder
            .with_config_entry(
                "session.model_external_initializers_file_folder_path",
                exported.folder.to_string_lossy(),
            )?
            .with_operators(operators(exported.factors.into())?)?
            .commit_from_memory(&exported.onnx),
    }
}

fn input(name: &str, kind: &ValueType) -> Result<Input, ModelError> {
    let unsupported = |what: &str| Err(ModelError::Unsupported(format!("its graph's input {name} {what}")));
    if kind.tensor_type() != Some(TensorElementType::Int64) {
        return unsupported("is not of 64-bit integers");
    }
    match name {
        "input_ids" => Ok(Input::Ids),
        "attention_mask" => Ok(Input::Mask),
        "token_type_ids" => Ok(Input::Types),
        _ => unsupported("is not one of a text encoder"),
    }
}
