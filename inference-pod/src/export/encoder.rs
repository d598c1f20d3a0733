//! What BERT and its kin share: the first vectors of tokens, and a layer, which adds and then normalises.

use super::{
    activation::Activation,
    graph::{CONTRIB, Graph, ONNX, Part, Value, float, int},
    norm::Norm,
    packed::Packing,
    proto::INT32,
    rope::{self, Angles},
};
use crate::model::{
    ModelError, Precision,
    files::{CONFIG, SAFETENSORS},
    weights::Weights,
};

/// `layer_norm_eps` where `config.json` has none.
pub(super) fn epsilon() -> f32 {
    1e-12
}

/// The activation where `config.json` has none.
pub(super) fn activation() -> String {
    "gelu".to_owned()
}

/// The sizes of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Numbers in a token's vector.
    pub(super) hidden: usize,
    /// Attention heads of a layer.
    pub(super) heads: usize,
    /// Numbers between the two products of a layer's feed-forward part.
    pub(super) intermediate: usize,
    /// Keeps a normalisation from dividing by zero.
    pub(super) epsilon: f32,
    /// Of the feed-forward part.
    pub(super) activation: Activation,
}

impl Sizes {
    /// Refuses what [`check_heads`] does.
    pub(super) fn checked(self) -> Result<Self, ModelError> {
        check_heads(self.hidden, self.heads)?;
        Ok(self)
    }
}

/// Refuses vectors without numbers, and heads of different sizes.
pub(super) fn check_heads(hidden: usize, heads: usize) -> Result<(), ModelError> {
    if hidden == 0 || heads == 0 || !hidden.is_multiple_of(heads) {
        return Err(ModelError::invalid(CONFIG, "heads do not divide the hidden size"));
    }
    Ok(())
}

/// The tensors of a layer, without `.weight` and `.bias`.
pub(super) struct Names {
    pub(super) query: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) attended: String,
    pub(super) attended_norm: String,
    pub(super) up: String,
    pub(super) down: String,
    pub(super) norm: String,
}

/// What stands before the tensors' names: the first of `prefixes` with which there is a tensor `anchor`. It depends on
/// whether a model was saved alone or as part of another.
pub(super) fn prefix<'p>(
    weights: &Weights,
    prefixes: &[&'p str],
    anchor: &str,
) -> Result<&'p str, ModelError> {
    let found = prefixes.iter().find(|prefix| weights.has(&format!("{prefix}{anchor}")));
    found.copied().ok_or_else(|| ModelError::invalid(SAFETENSORS, format!("it has no tensor {anchor}")))
}

/// Which text of a pair each token belongs to.
pub(super) struct Types {
    /// `[batch, sequence]`, or `[tokens]` if they are packed.
    pub(super) of_tokens: Value,
    /// The tensor that has a row for each type.
    pub(super) table: String,
    pub(super) rows: usize,
}

/// The sum of a token's own vector, that of its position and that of its type, normalised, in one operator. `positions`
/// has a row for each position.
pub(super) fn embed(
    graph: &mut Graph<'_>,
    sizes: &Sizes,
    ids: &str,
    (words, vocabulary): (&str, usize),
    types: Option<&Types>,
    positions: &[f32],
    norm: &str,
) -> Result<Value, ModelError> {
    if let Some(packing) = graph.packing().cloned() {
        let words = graph.lookup(words, &[vocabulary, sizes.hidden], ids)?;
        let positions =
            graph.constant("positions_table", &[positions.len() / sizes.hidden, sizes.hidden], positions);
        let mut positions = graph.node(ONNX, "Gather", &[&positions, &packing.positions], Vec::new());
        if let Some(types) = types {
            let table = graph.weight(&types.table, &[types.rows, sizes.hidden])?;
            let types = graph.node(ONNX, "Gather", &[&table, &types.of_tokens], Vec::new());
            positions = graph.node(ONNX, "Add", &[&positions, &types], Vec::new());
        }
        return add_and_normalise(graph, sizes, norm, [&words, &positions, ""]);
    }
    let hidden = sizes.hidden;
    let ids = graph.cast(ids, INT32);
    let words = graph.weight(words, &[vocabulary, hidden])?;
    let positions = graph.constant("positions", &[positions.len() / hidden, hidden], positions);
    let gamma = graph.weight(&format!("{norm}.weight"), &[hidden])?;
    let beta = graph.weight(&format!("{norm}.bias"), &[hidden])?;
    let (types, table) = match types {
        None => (String::new(), String::new()),
        Some(types) => {
            (graph.cast(&types.of_tokens, INT32), graph.weight(&types.table, &[types.rows, hidden])?)
        }
    };
    let inputs = [&ids, &*types, &words, &positions, &*table, &gamma, &beta];
    let epsilon = vec![float("epsilon", sizes.epsilon)];
    Ok(graph.node_of(CONTRIB, "EmbedLayerNormalization", &inputs, 2, epsilon))
}

/// One layer after the other. `distance_bias` is as in [`attend`].
pub(super) fn layers(
    graph: &mut Graph<'_>,
    sizes: &Sizes,
    mut names: impl Iterator<Item = Names>,
    embedded: Value,
    distance_bias: &str,
) -> Result<Value, ModelError> {
    names.try_fold(embedded, |x, names| layer(graph, sizes, &names, &x, distance_bias))
}

fn layer(
    graph: &mut Graph<'_>,
    sizes: &Sizes,
    names: &Names,
    x: &str,
    distance_bias: &str,
) -> Result<Value, ModelError> {
    let Sizes { hidden: h, intermediate: m, activation, .. } = *sizes;
    let context = attention(graph, sizes, [&names.query, &names.key, &names.value], x, distance_bias)?;
    let (y, bias) = dense(graph, &names.attended, &context, h, h)?;
    let y = add_and_normalise(graph, sizes, &names.attended_norm, [&y, x, &bias])?;
    let z = activated(graph, activation, &names.up, &y, [h, m])?;
    let (z, bias) = dense(graph, &names.down, &z, m, h)?;
    add_and_normalise(graph, sizes, &names.norm, [&z, &y, &bias])
}

/// Attention. The operator adds the biases of the three projections, which it wants in one row.
fn attention(
    graph: &mut Graph<'_>,
    sizes: &Sizes,
    projections: [&str; 3],
    x: &str,
    distance_bias: &str,
) -> Result<Value, ModelError> {
    let h = sizes.hidden;
    let mut bias = Vec::with_capacity(3 * h);
    for name in projections {
        bias.extend(graph.weights().floats(&format!("{name}.bias"), &[h])?);
    }
    let weights = projections.map(|name| format!("{name}.weight"));
    let projected = graph.linears(x, weights.each_ref().map(|weight| Part::whole(weight, [h, h])))?;
    let bias = graph.constant(&format!("{}.all.bias", projections[0]), &[3 * h], &bias);
    Ok(attend(graph, projected.each_ref().map(String::as_str), &bias, sizes.heads, distance_bias))
}

/// Attention among tokens that are packed: each head of each row by itself, on `[tokens, hidden]`.
const PACKED_ATTENTION: &str = "PackedMultiHeadAttention";

/// The operator: each head by itself, on `[batch, sequence, hidden]`. `distance_bias` is added to the scores,
/// `[1, heads, sequence, sequence]`, of packed tokens as long as the longest row, and perhaps the same for all heads; may be
/// empty.
pub(super) fn attend(
    graph: &mut Graph<'_>,
    [query, key, value]: [&str; 3],
    bias: &str,
    heads: usize,
    distance_bias: &str,
) -> Value {
    if let Some(Packing { offsets, before, .. }) = graph.packing().cloned() {
        let inputs = [query, key, value, bias, &offsets, &before, distance_bias];
        return graph.node(CONTRIB, PACKED_ATTENTION, &inputs, vec![int("num_heads", heads as i64)]);
    }
    let no_mask = "";
    let inputs = [query, key, value, bias, no_mask, distance_bias];
    graph.node(CONTRIB, "MultiHeadAttention", &inputs, vec![int("num_heads", heads as i64)])
}

/// Attention between vectors that are turned by their positions. The three projections are saved as one tensor.
pub(super) fn rotary_attention(
    graph: &mut Graph<'_>,
    packed: &str,
    [hidden, heads]: [usize; 2],
    x: &str,
    angles: &Angles,
    distance_bias: &str,
) -> Result<Value, ModelError> {
    let [query, key, value] = graph.linears(x, Part::each(packed, [hidden, hidden]))?;
    let query = rope::turn(graph, &query, hidden, angles);
    let key = rope::turn(graph, &key, hidden, angles);
    Ok(attend(graph, [&query, &key, &value], "", heads, distance_bias))
}

/// One value, after its activation, times another.
pub(super) fn gated(graph: &mut Graph<'_>, gate: &str, up: &str, activation: Activation) -> Value {
    let gate = activation.of(graph, gate);
    graph.node(ONNX, "Mul", &[&gate, up], Vec::new())
}

/// `x` times the weights, and the bias, which the next operator adds.
fn dense(
    graph: &mut Graph<'_>,
    name: &str,
    x: &str,
    from: usize,
    to: usize,
) -> Result<(Value, Value), ModelError> {
    let product = graph.linear(x, &format!("{name}.weight"), from, to)?;
    Ok((product, graph.weight(&format!("{name}.bias"), &[to])?))
}

/// The activation of `x` times the weights and the bias.
fn activated(
    graph: &mut Graph<'_>,
    activation: Activation,
    name: &str,
    x: &str,
    [from, to]: [usize; 2],
) -> Result<Value, ModelError> {
    if graph.precision() == Precision::Int8 && activation == Activation::Gelu {
        let weight = format!("{name}.weight");
        return graph.gelu_of_product(x, Part::whole(&weight, [to, from]), &format!("{name}.bias"));
    }
    let (product, bias) = dense(graph, name, x, from, to)?;
    Ok(activation.of_sum(graph, &product, &bias))
}

/// The normalised sum of a vector, what it is added to and a bias.
fn add_and_normalise(
    graph: &mut Graph<'_>,
    sizes: &Sizes,
    name: &str,
    [x, skip, bias]: [&str; 3],
) -> Result<Value, ModelError> {
    let gamma = graph.weight(&format!("{name}.weight"), &[sizes.hidden])?;
    let beta = graph.weight(&format!("{name}.bias"), &[sizes.hidden])?;
    Ok(graph.normalised_sum([x, skip, bias], &Norm { gamma, beta, epsilon: sizes.epsilon }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once, a configuration that says so made the program panic.
    #[test]
    fn a_network_of_no_size_is_refused() {
        assert!(check_heads(384, 12).is_ok());
        for (hidden, heads) in [(0, 12), (384, 0), (0, 0), (384, 7)] {
            assert!(check_heads(hidden, heads).is_err_and(|e| e.to_string().contains("config.json")));
        }
    }
}
