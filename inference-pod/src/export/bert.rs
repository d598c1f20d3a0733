//! BERT, and RoBERTa, which is BERT with its first position in another row.

use serde::Deserialize;

use super::{
    activation::Activation,
    encoder::{self, Names, Sizes, View},
    graph::{Graph, Value},
};
use crate::model::{Config, ModelError};

/// What stands before the tensors' names.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "encoder::epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "encoder::activation")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    type_vocab_size: Option<usize>,
}

/// Vectors of tokens.
pub(super) fn build(
    graph: &mut Graph<'_>,
    config: &Config,
    ids: &str,
    mask: Value,
) -> Result<Value, ModelError> {
    let own: Own = config.read()?;
    if let Some(kind) = own.position_embedding_type.as_deref().filter(|&kind| kind != "absolute") {
        return Err(ModelError::Unsupported(format!("its positions are {kind:?}")));
    }
    let sizes = Sizes {
        hidden: own.hidden_size,
        heads: own.num_attention_heads,
        intermediate: own.intermediate_size,
        epsilon: own.layer_norm_eps,
        activation: Activation::named(&own.hidden_act)?,
    };
    let sizes = sizes.checked()?;
    let words = "embeddings.word_embeddings.weight";
    let prefix = encoder::prefix(graph.weights(), &PREFIXES, words)?;
    let name = |part: &str| format!("{prefix}{part}");
    let positions = positions(graph, config, &own, prefix)?;
    let (words, norm) = (name(words), name("embeddings.LayerNorm"));
    let mut x = encoder::embed(graph, &sizes, ids, (&words, config.vocab_size), &positions, &norm)?;
    let view = View { mask, bias: String::new() };
    for layer in 0..own.num_hidden_layers {
        let name = |part: &str| name(&format!("encoder.layer.{layer}.{part}"));
        let names = Names {
            query: name("attention.self.query"),
            key: name("attention.self.key"),
            value: name("attention.self.value"),
            attended: name("attention.output.dense"),
            attended_norm: name("attention.output.LayerNorm"),
            up: name("intermediate.dense"),
            down: name("output.dense"),
            norm: name("output.LayerNorm"),
        };
        x = encoder::layer(graph, &sizes, &names, &x, &view)?;
    }
    Ok(x)
}

/// The vectors of positions. There is one type of token, so its row is added to each.
fn positions(graph: &Graph<'_>, config: &Config, own: &Own, prefix: &str) -> Result<Vec<f32>, ModelError> {
    let hidden = own.hidden_size;
    let (rows, types) = (own.max_position_embeddings, own.type_vocab_size.unwrap_or(2));
    let read = |name: &str, shape: &[usize]| graph.weights().floats(&format!("{prefix}{name}"), shape);
    let mut table = read("embeddings.position_embeddings.weight", &[rows, hidden])?;
    let kind = read("embeddings.token_type_embeddings.weight", &[types, hidden])?;
    table.drain(..config.position_offset().min(rows) * hidden);
    for row in table.chunks_mut(hidden) {
        row.iter_mut().zip(&kind).for_each(|(x, y)| *x += y);
    }
    Ok(table)
}
