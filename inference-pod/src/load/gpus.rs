//! The part of loading that is about GPUs.

use std::time::Duration;

use kembed_queue::{Budget, Rate};

use super::{Made, Ready, Warm};
use crate::{
    backend::{
        Backend,
        headed::Headed,
        onnx::{Graph, Onnx},
    },
    batch::row::Row,
    config::Accelerator,
    cuda::{
        driver::About,
        fault::Fault,
        network::Network,
        prepare::{Known, Plan, PrepareError, Prepared, ROWS, prepare},
        probe::{Found, probe},
        sensors::{self, Shown, Watched},
    },
    export::{self, packed},
    limits::Limits,
    model::{ModelError, Precision, Recipe, files},
    start::{AcceleratorError, StartError},
    tokenise::Cut,
};

/// GPUs that can be used.
pub(super) struct Gpus {
    resource: String,
    found: Found,
}

impl Gpus {
    /// Looks for what was asked for, before anything is fetched for it.
    pub(super) fn find(Accelerator { resource }: Accelerator) -> Result<Self, StartError> {
        match probe() {
            Ok(found) => Ok(Self { resource, found }),
            Err(why) => Err(StartError::Accelerator { resource, why: why.into() }),
        }
    }

    /// Shows from now on what they say of themselves.
    pub(super) fn watch(&self, shown: Shown) {
        let watched = |about: &About| {
            let ordinal = about.ordinal;
            self.found.driver.uuid(ordinal).map(|uuid| Watched { ordinal, uuid })
        };
        match self.found.devices.iter().map(watched).collect() {
            Ok(devices) => sensors::watch(devices, shown),
            Err(error) => {
                tracing::warn!(%error, "GPUs do not say who they are: there are no metrics of their memory, use and power");
            }
        }
    }

    /// Puts the network on all of them, if they compute what the CPU does.
    pub(super) fn ready(self, made: &Made, limits: Limits) -> Result<Ready, StartError> {
        let recipe = &made.recipe;
        let (graph, form) = packed::export(recipe, &made.weights()?)?;
        let known = known(made)?;
        let dimension = known.first().map_or(0, |known| known.vector.len());
        made.check_labels(dimension)?;
        let plan = Plan {
            form,
            classifies: recipe.labels.is_some(),
            longest: recipe.max_tokens,
            known: &known,
            precision: recipe.precision,
        };
        let prepared = prepare(&self.found, &plan, |device, streams| {
            let network = Network::on(device, streams, &made.environment, &graph, dimension);
            network.map_err(|error| Fault::of_onnxruntime(error.message()))
        });
        let Prepared { backends, tokens, rate: measured, devices } =
            prepared.map_err(|why| self.unusable(why.into()))?;
        let layers = made.layers()?;
        let headed = |backend| Headed::new(backend, layers.clone());
        let mut backends: Vec<_> = backends.into_iter().map(headed).collect();
        // With the layers behind it.
        let vectors = match (backends.first_mut(), known.first()) {
            (Some(backend), Some(known)) => backend.run(&[&known.row]),
            _ => Ok(Vec::new()),
        };
        let vectors = vectors.map_err(|error| self.unusable(PrepareError::Run(error).into()))?;
        // Each of those that give batches to a device has its share of it.
        let took = Duration::try_from_secs_f64((tokens * backends.len() as u64) as f64 / measured);
        let mut rate = Rate::default();
        rate.observe(tokens, took.unwrap_or_default());
        Ok(Ready {
            warm: Warm { dimension: vectors.first().map_or(0, Vec::len), rate },
            limits: Limits { batch: Budget { tokens, rows: ROWS }, threads: backends.len(), ..limits },
            backends: backends.into_iter().map(|backend| Box::new(backend) as Box<dyn Backend>).collect(),
            gives_tokens: false,
            devices,
        })
    }

    fn unusable(&self, why: AcceleratorError) -> StartError {
        StartError::Accelerator { resource: self.resource.clone(), why }
    }
}

/// Of several kinds and lengths, so that attention has something to find. Those that a tokenizer does not know are as good as
/// others: only what comes of them is compared.
const TEXTS: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog.",
    "Embeddings of similar sentences point in similar directions.",
    "SELECT name FROM users WHERE id = 42;",
    "Der schnelle braune Fuchs springt über den faulen Hund, und der Hund schläft weiter.",
    "机器学习模型把文本变成向量。",
    "a",
];

/// What the CPU computes of a few rows, in 32-bit floats.
fn known(made: &Made) -> Result<Vec<Known>, StartError> {
    let recipe = Recipe { precision: Precision::Float32, ..made.recipe.clone() };
    let graph = Graph::Made(export::export(&recipe, &made.weights()?)?);
    let mut network = Onnx::new(&made.environment, graph, made.output(), made.filler())?;
    let damaged = |e| ModelError::invalid(files::TOKENIZER, e);
    let mut rows = made.first_rows().map_err(damaged)?;
    for text in TEXTS {
        rows.push(Row::new(made.tokeniser.ids("", text).map_err(damaged)?));
    }
    if made.recipe.labels.is_some() {
        // One that belongs together, and one that does not.
        for text in &TEXTS[..2] {
            let pair = made.tokeniser.pairs(TEXTS[0], Cut::End).and_then(|pairs| pairs.with(text));
            let (ids, types) = pair.map_err(damaged)?;
            rows.push(Row::typed(ids, types));
        }
    }
    let known = rows.into_iter().map(|row| {
        let vectors = network.run(&[&row]).map_err(StartError::WarmUp)?;
        Ok(Known { vector: vectors.into_iter().next().unwrap_or_default(), row })
    });
    known.collect()
}
