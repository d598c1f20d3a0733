//! From weights to a graph that ONNX Runtime runs: one file an architecture.

mod activation;
mod bert;
mod classify;
mod distance;
mod distilbert;
mod encoder;
mod graph;
mod half;
pub mod int8;
mod modernbert;
mod mpnet;
mod nomic;
pub mod norm;
pub mod packed;
mod proto;
mod qwen3;
mod rope;

use self::{
    graph::{Graph, Value},
    proto::INT64,
};
use crate::model::{ModelError, Recipe, weights::Weights};

/// The domain of our own operators.
pub const OWN: &str = "kembed";

/// A graph, and where the weights that it names but does not hold are.
#[derive(Debug)]
pub struct Exported {
    /// A serialised ONNX model. Tensors that can be used as they lie are references into the files of weights.
    pub onnx: Vec<u8>,
    /// The folder that those references are relative to.
    pub folder: std::path::PathBuf,
    /// Weights that were rounded, as the nodes number them that use them.
    pub factors: Vec<kembed_int8::Factor>,
}

/// Makes the graph of a model. It takes `input_ids`, `[batch, sequence]`, of rows without padding, and gives
/// `last_hidden_state`, `[batch, sequence, hidden_size]`. That of a model that classifies may also take
/// `token_type_ids`, and gives `logits`, `[batch, labels]`. A mask of ones would make attention slower and nothing else;
/// a decoder has one still, for its operator wants to know how long rows are.
///
/// # Errors
/// If the architecture is not known, or the weights do not fit it.
pub fn export(recipe: &Recipe, weights: &Weights) -> Result<Exported, ModelError> {
    let mut graph = Graph::new(weights, recipe.precision);
    let ids = graph.input("input_ids", INT64, &["batch", "sequence"]);
    let hidden = network(&mut graph, recipe, &ids)?;
    match &recipe.labels {
        None => graph.output("last_hidden_state", hidden, &["batch", "sequence", "hidden"]),
        Some(labels) => {
            let scores = classify::build(&mut graph, &recipe.config, labels.len(), &hidden)?;
            graph.output("logits", scores, &["batch", "labels"]);
        }
    }
    Ok(graph.finish())
}

/// Vectors of tokens, by the architecture of the model.
fn network(graph: &mut Graph<'_>, recipe: &Recipe, ids: &str) -> Result<Value, ModelError> {
    let (config, longest) = (&recipe.config, recipe.max_tokens);
    match config.model_type.as_str() {
        // RoBERTa and its kin are BERT but for where positions begin, which the configuration knows.
        "bert" | "roberta" | "xlm-roberta" | "camembert" => {
            bert::build(graph, config, ids, recipe.labels.is_some())
        }
        "distilbert" => distilbert::build(graph, config, ids),
        "mpnet" => mpnet::build(graph, config, ids),
        "modernbert" => modernbert::build(graph, config, ids, longest),
        "nomic_bert" => nomic::build(graph, config, ids, longest),
        "qwen3" => qwen3::build(graph, config, ids, longest),
        other if graph.packing().is_some() => {
            Err(packed::not_there(&format!("weights of model type {other:?}")))
        }
        other => Err(ModelError::Unsupported(format!(
            "weights of model type {other:?} cannot be turned into a graph; if the model ships one, name it with --file"
        ))),
    }
}
