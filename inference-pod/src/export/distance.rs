//! How far apart the tokens of a row are.

use super::graph::{Graph, ONNX, Value, int};

/// `[sequence, sequence]`: where the second token stands less where the first does.
pub(super) fn between(graph: &mut Graph<'_>, ids: &str) -> Value {
    let shape = graph.node(ONNX, "Shape", &[ids], Vec::new());
    let [zero, one] = [0, 1].map(|n| graph.integers(&format!("the_number_{n}"), &[], &[n]));
    let length = graph.node(ONNX, "Gather", &[&shape, &one], vec![int("axis", 0)]);
    let place = graph.node(ONNX, "Range", &[&zero, &length, &one], Vec::new());
    let [first, second] = [1, 0].map(|axis| {
        let axis = graph.integers(&format!("axis_{axis}"), &[1], &[axis]);
        graph.node(ONNX, "Unsqueeze", &[&place, &axis], Vec::new())
    });
    graph.node(ONNX, "Sub", &[&second, &first], Vec::new())
}
