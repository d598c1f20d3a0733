//! How far apart the tokens of a row are.

use super::{
    graph::{Graph, ONNX, Value, int},
    packed::inputs,
    proto::INT32,
};

/// `[sequence, sequence]`: where the second token stands less where the first does. If tokens are packed, up to the longest row.
pub(super) fn between(graph: &mut Graph<'_>, ids: &str) -> Value {
    let place = match graph.packing() {
        None => places(graph, ids),
        Some(_) => graph.input(inputs::PLACES, INT32, &["longest"]),
    };
    let [first, second] = [1, 0].map(|axis| {
        let axis = graph.integers(&format!("axis_{axis}"), &[1], &[axis]);
        graph.node(ONNX, "Unsqueeze", &[&place, &axis], Vec::new())
    });
    graph.node(ONNX, "Sub", &[&second, &first], Vec::new())
}

/// A distance: 32 bits for GPUs, where a table of those between all tokens may be large.
pub(super) fn constant(graph: &mut Graph<'_>, name: &str, distance: i64) -> Value {
    match graph.packing() {
        None => graph.integers(name, &[], &[distance]),
        Some(_) => graph.initializer(name, INT32, &[], (distance as i32).to_le_bytes().to_vec()),
    }
}

/// `[sequence]`: 0, 1 and so on.
fn places(graph: &mut Graph<'_>, ids: &str) -> Value {
    let shape = graph.node(ONNX, "Shape", &[ids], Vec::new());
    let [zero, one] = [0, 1].map(|n| graph.integers(&format!("the_number_{n}"), &[], &[n]));
    let length = graph.node(ONNX, "Gather", &[&shape, &one], vec![int("axis", 0)]);
    graph.node(ONNX, "Range", &[&zero, &length, &one], Vec::new())
}
