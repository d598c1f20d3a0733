//! From weights to a graph that ONNX Runtime runs: one file an architecture.

mod bert;
mod graph;
mod proto;

use crate::model::{ModelError, recipe::Config, weights::Weights};

/// A graph, and where the weights that it names but does not hold are.
#[derive(Debug)]
pub struct Exported {
    /// A serialised ONNX model. Tensors that can be used as they lie are references into the file of weights.
    pub onnx: Vec<u8>,
    /// The folder that those references are relative to.
    pub folder: std::path::PathBuf,
}

/// Makes the graph of a model. It takes `input_ids` and `attention_mask`, both `[batch, sequence]`, and gives
/// `last_hidden_state`, `[batch, sequence, hidden_size]`.
///
/// # Errors
/// If the architecture is not known, or the weights do not fit it.
pub fn export(config: &Config, weights: &Weights) -> Result<Exported, ModelError> {
    match config.model_type.as_str() {
        // RoBERTa and its kin are BERT but for where positions begin, which the configuration knows.
        "bert" | "roberta" | "xlm-roberta" | "camembert" => bert::export(config, weights),
        other => Err(ModelError::Unsupported(format!(
            "weights of model type {other:?} cannot be turned into a graph; if the model ships one, name it with --file"
        ))),
    }
}
