//! MPNet: BERT whose scores also depend on how far apart two tokens are.

use serde::Deserialize;

use super::{
    activation::Activation,
    distance,
    encoder::{self, Names, Sizes},
    graph::{Graph, ONNX, Value, int},
    packed::rounded_row,
};
use crate::model::{Config, ModelError};

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    relative_attention_num_buckets: usize,
    #[serde(default = "encoder::epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "encoder::activation")]
    hidden_act: String,
}

/// Vectors of tokens.
pub(super) fn build(graph: &mut Graph<'_>, config: &Config, ids: &str) -> Result<Value, ModelError> {
    let own: Own = config.read()?;
    if own.relative_attention_num_buckets != BUCKETS {
        let buckets = own.relative_attention_num_buckets;
        return Err(ModelError::Unsupported(format!("it has {buckets} buckets of distance, not {BUCKETS}")));
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
    let prefix = encoder::prefix(graph.weights(), &["", "mpnet."], words)?;
    let name = |part: &str| format!("{prefix}{part}");
    let positions = name("embeddings.position_embeddings.weight");
    let positions = graph.weights().floats(&positions, &[own.max_position_embeddings, own.hidden_size])?;
    let positions = positions.get(config.position_offset() * own.hidden_size..).unwrap_or_default();
    let (words, norm) = (name(words), name("embeddings.LayerNorm"));
    let x = encoder::embed(graph, &sizes, ids, (&words, config.vocab_size), None, positions, &norm)?;
    // Rows of packed tokens are made longer than any input may be.
    let longest = rounded_row(own.max_position_embeddings);
    let bias = bias(graph, &name("encoder.relative_attention_bias.weight"), sizes.heads, longest, ids)?;
    let layers = (0..own.num_hidden_layers).map(|layer| {
        let name = |part: &str| name(&format!("encoder.layer.{layer}.{part}"));
        Names {
            query: name("attention.attn.q"),
            key: name("attention.attn.k"),
            value: name("attention.attn.v"),
            attended: name("attention.attn.o"),
            attended_norm: name("attention.LayerNorm"),
            up: name("intermediate.dense"),
            down: name("output.dense"),
            norm: name("output.LayerNorm"),
        }
    });
    encoder::layers(graph, &sizes, layers, x, &bias)
}

/// The reference uses this many whatever the configuration says.
const BUCKETS: usize = 32;
/// From this distance on, all are in the last bucket.
const FARTHEST: f32 = 128.;

/// What is added to the scores: `[1, heads, sequence, sequence]`, the same for all layers and rows.
fn bias(
    graph: &mut Graph<'_>,
    tensor: &str,
    heads: usize,
    longest: usize,
    ids: &str,
) -> Result<Value, ModelError> {
    let saved = graph.weights().floats(tensor, &[BUCKETS, heads])?;
    // A row for each head, a column for each distance from the farthest before to the farthest behind.
    let distances = 1 - longest as i64..longest as i64;
    let table: Vec<f32> = (0..heads)
        .flat_map(|head| distances.clone().map(move |distance| (head, distance)))
        .map(|(head, distance)| saved[bucket(distance) * heads + head])
        .collect();
    let table = graph.constant("distance_bias", &[heads, distances.count()], &table);
    let zero = distance::constant(graph, "no_distance", longest as i64 - 1);
    let distance = distance::between(graph, ids);
    let column = graph.node(ONNX, "Add", &[&distance, &zero], Vec::new());
    let bias = graph.node(ONNX, "Gather", &[&table, &column], vec![int("axis", 1)]);
    let first = graph.integers("of_all_rows", &[1], &[0]);
    Ok(graph.node(ONNX, "Unsqueeze", &[&bias, &first], Vec::new()))
}

/// The row of a distance: half of them for what is behind; of each half, the first half for small distances one by
/// one, the rest on a logarithmic scale.
fn bucket(distance: i64) -> usize {
    let (half, exact) = (BUCKETS / 2, BUCKETS / 4);
    let side = if distance > 0 { half } else { 0 };
    let n = distance.unsigned_abs() as usize;
    if n < exact {
        return side + n;
    }
    // In the same precision and order as the reference, for whole results are cut, not rounded.
    let scale = f64::from(FARTHEST / exact as f32).ln() as f32;
    let large = (n as f32 / exact as f32).ln() / scale * (half - exact) as f32;
    side + (exact + large as usize).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_fall_into_the_reference_s_buckets() {
        // As T5 has them, which MPNet copies.
        let expected = [(0, 0), (-1, 1), (1, 17), (-7, 7), (-8, 8), (8, 24), (-11, 8), (-12, 9), (-16, 10)];
        for (distance, row) in expected.into_iter().chain([(-127, 15), (-5000, 15), (127, 31), (5000, 31)]) {
            assert_eq!(bucket(distance), row, "{distance}");
        }
    }
}
