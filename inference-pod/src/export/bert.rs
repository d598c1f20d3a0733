//! BERT, and RoBERTa, which is BERT with its first position in another row.

use serde::Deserialize;

use super::{
    activation::Activation,
    encoder::{self, Names, Sizes, Types},
    graph::{Graph, Value},
    packed::inputs,
    proto::{INT32, INT64},
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

/// Vectors of tokens. Where there are pairs of texts, it is an input of the graph which text a token belongs to, if the
/// model knows more than one.
pub(super) fn build(
    graph: &mut Graph<'_>,
    config: &Config,
    ids: &str,
    pairs: bool,
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
    }
    .checked()?;
    let words = "embeddings.word_embeddings.weight";
    let prefix = encoder::prefix(graph.weights(), &PREFIXES, words)?;
    let name = |part: &str| format!("{prefix}{part}");
    let kinds = own.type_vocab_size.unwrap_or(2);
    let types = (pairs && kinds > 1).then(|| {
        let of_tokens = match graph.packing() {
            None => graph.input("token_type_ids", INT64, &["batch", "sequence"]),
            Some(_) => graph.input(inputs::TYPES, INT32, &["tokens"]),
        };
        Types { of_tokens, table: name(TYPES), rows: kinds }
    });
    let mut positions = positions(graph, config, &own, prefix)?;
    if types.is_none() {
        add_first_type(graph, &own, kinds, &name(TYPES), &mut positions)?;
    }
    let (words, norm) = (name(words), name("embeddings.LayerNorm"));
    let words = (words.as_str(), config.vocab_size);
    let x = encoder::embed(graph, &sizes, ids, words, types.as_ref(), &positions, &norm)?;
    let layers = (0..own.num_hidden_layers).map(|layer| {
        let name = |part: &str| name(&format!("encoder.layer.{layer}.{part}"));
        Names {
            query: name("attention.self.query"),
            key: name("attention.self.key"),
            value: name("attention.self.value"),
            attended: name("attention.output.dense"),
            attended_norm: name("attention.output.LayerNorm"),
            up: name("intermediate.dense"),
            down: name("output.dense"),
            norm: name("output.LayerNorm"),
        }
    });
    encoder::layers(graph, &sizes, layers, x, "")
}

/// The vectors of types of token.
const TYPES: &str = "embeddings.token_type_embeddings.weight";

/// The vectors of positions, from that of the first token on.
fn positions(graph: &Graph<'_>, config: &Config, own: &Own, prefix: &str) -> Result<Vec<f32>, ModelError> {
    let (rows, hidden) = (own.max_position_embeddings, own.hidden_size);
    let name = format!("{prefix}embeddings.position_embeddings.weight");
    let mut table = graph.weights().floats(&name, &[rows, hidden])?;
    table.drain(..config.position_offset().min(rows) * hidden);
    Ok(table)
}

/// Adds the row of the one type of token that there is to each position.
fn add_first_type(
    graph: &Graph<'_>,
    own: &Own,
    types: usize,
    name: &str,
    positions: &mut [f32],
) -> Result<(), ModelError> {
    let kind = graph.weights().floats(name, &[types, own.hidden_size])?;
    for row in positions.chunks_mut(own.hidden_size) {
        row.iter_mut().zip(&kind).for_each(|(x, y)| *x += y);
    }
    Ok(())
}
