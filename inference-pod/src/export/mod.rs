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
    let (config, longest, labels) = (&recipe.config, recipe.max_tokens, recipe.labels.as_ref());
    let mut graph = Graph::new(weights, recipe.precision);
    let dims = ["batch", "sequence"];
    let ids = &graph.input("input_ids", INT64, &dims);
    let none = Value::new();
    let hidden = match config.model_type.as_str() {
        // RoBERTa and its kin are BERT but for where positions begin, which the configuration knows.
        "bert" | "roberta" | "xlm-roberta" | "camembert" => {
            bert::build(&mut graph, config, ids, none, labels.is_some())
        }
        "distilbert" => distilbert::build(&mut graph, config, ids, none),
        "mpnet" => mpnet::build(&mut graph, config, ids, none),
        "modernbert" => modernbert::build(&mut graph, config, ids, none, longest),
        "nomic_bert" => nomic::build(&mut graph, config, ids, none, longest),
        "qwen3" => {
            let mask = graph.input("attention_mask", INT64, &dims);
            qwen3::build(&mut graph, config, ids, &mask, longest)
        }
        other => Err(ModelError::Unsupported(format!(
            "weights of model type {other:?} cannot be turned into a graph; if the model ships one, name it with --file"
        ))),
    }?;
    match labels {
        None => graph.output("last_hidden_state", hidden, &["batch", "sequence", "hidden"]),
        Some(labels) => {
            let scores = classify::build(&mut graph, config, labels.len(), &hidden)?;
            graph.output("logits", scores, &["batch", "labels"]);
        }
    }
    Ok(graph.finish())
}
