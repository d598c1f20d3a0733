//! How far apart the tokens of a row are, and which of them a token does not see.

use super::{
    graph::{Graph, ONNX, Value, int},
    packed::inputs,
    proto::INT32,
};
use crate::model::ModelError;

/// `[sequence, sequence]`: where the second token stands less where the first does. If tokens are packed, up to the longest row.
pub(super) fn between(graph: &mut Graph<'_>, ids: &str) -> Value {
    let [first, second] = pairs(graph, ids);
    graph.node(ONNX, "Sub", &[&second, &first], Vec::new())
}

/// `[sequence, sequence]`: whether the second token stands behind the first, as far as in [`between`].
pub(super) fn behind(graph: &mut Graph<'_>, ids: &str) -> Value {
    let [first, second] = pairs(graph, ids);
    graph.node(ONNX, "Greater", &[&second, &first], Vec::new())
}

/// What is added to scores, `[1, 1, sequence, sequence]`, so that the first token sees the second only where it is not hidden.
pub(super) fn hide(graph: &mut Graph<'_>, hidden: &str) -> Value {
    // As good as never, where -1e30 is infinite in 16 bits: a token that sees none of the first tokens that a kernel takes at a time
    // would have infinity taken from infinity.
    let never = if graph.packing().is_some() { -3e4 } else { -1e30 };
    let [never, free] =
        [("never", never), ("free", 0.)].map(|(name, bias)| graph.constant(name, &[], &[bias]));
    let bias = graph.node(ONNX, "Where", &[hidden, &never, &free], Vec::new());
    let axes = graph.integers("rows_and_heads", &[2], &[0, 1]);
    graph.node(ONNX, "Unsqueeze", &[&bias, &axes], Vec::new())
}

/// On a GPU what is added, and what it is made of, take up to eleven bytes for each two tokens of the longest row: 740 MB with so
/// many.
const LONGEST: usize = 8192;

/// Refuses a table of the tokens of inputs that are too long for it.
pub(super) fn check_table(graph: &Graph<'_>, positions: usize) -> Result<(), ModelError> {
    if graph.packing().is_some() && positions > LONGEST {
        return Err(ModelError::Unsupported(format!(
            "its tokens do not see all others, which on a GPU is for inputs of up to {LONGEST} tokens, and it takes {positions}: \
             ask for fewer with --max-tokens (spec.model.maxTokens)"
        )));
    }
    Ok(())
}

/// A distance: 32 bits for GPUs, where a table of those between all tokens may be large.
pub(super) fn constant(graph: &mut Graph<'_>, name: &str, distance: i64) -> Value {
    match graph.packing() {
        None => graph.integers(name, &[], &[distance]),
        Some(_) => graph.initializer(name, INT32, &[], (distance as i32).to_le_bytes().to_vec()),
    }
}

/// Where the first and the second of two tokens stand: `[sequence, 1]` and `[1, sequence]`.
fn pairs(graph: &mut Graph<'_>, ids: &str) -> [Value; 2] {
    let place = match graph.packing() {
        None => places(graph, ids),
        Some(_) => graph.input(inputs::PLACES, INT32, &["longest"]),
    };
    [1, 0].map(|axis| {
        let axis = graph.integers(&format!("axis_{axis}"), &[1], &[axis]);
        graph.node(ONNX, "Unsqueeze", &[&place, &axis], Vec::new())
    })
}

/// `[sequence]`: 0, 1 and so on.
fn places(graph: &mut Graph<'_>, ids: &str) -> Value {
    let shape = graph.node(ONNX, "Shape", &[ids], Vec::new());
    let [zero, one] = [0, 1].map(|n| graph.integers(&format!("the_number_{n}"), &[], &[n]));
    let length = graph.node(ONNX, "Gather", &[&shape, &one], vec![int("axis", 0)]);
    graph.node(ONNX, "Range", &[&zero, &length, &one], Vec::new())
}
