//! DistilBERT: BERT without types of token, and with other names.

use serde::Deserialize;

use super::{
    activation::Activation,
    encoder::{self, Names, Sizes},
    graph::{Graph, Value},
};
use crate::model::{Config, ModelError};

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    #[serde(default = "encoder::activation")]
    activation: String,
}

/// Vectors of tokens.
pub(super) fn build(graph: &mut Graph<'_>, config: &Config, ids: &str) -> Result<Value, ModelError> {
    let own: Own = config.read()?;
    let sizes = Sizes {
        hidden: own.dim,
        heads: own.n_heads,
        intermediate: own.hidden_dim,
        // It is not in the configuration.
        epsilon: encoder::epsilon(),
        activation: Activation::named(&own.activation)?,
    }
    .checked()?;
    let words = "embeddings.word_embeddings.weight";
    let prefix = encoder::prefix(graph.weights(), &["", "distilbert."], words)?;
    let name = |part: &str| format!("{prefix}{part}");
    // Sinusoidal positions are saved as a table too.
    let positions = name("embeddings.position_embeddings.weight");
    let positions = graph.weights().floats(&positions, &[own.max_position_embeddings, own.dim])?;
    let (words, norm) = (name(words), name("embeddings.LayerNorm"));
    let x = encoder::embed(graph, &sizes, ids, (&words, config.vocab_size), None, &positions, &norm)?;
    let layers = (0..own.n_layers).map(|layer| {
        let name = |part: &str| name(&format!("transformer.layer.{layer}.{part}"));
        Names {
            query: name("attention.q_lin"),
            key: name("attention.k_lin"),
            value: name("attention.v_lin"),
            attended: name("attention.out_lin"),
            attended_norm: name("sa_layer_norm"),
            up: name("ffn.lin1"),
            down: name("ffn.lin2"),
            norm: name("output_layer_norm"),
        }
    });
    encoder::layers(graph, &sizes, layers, x, "")
}
