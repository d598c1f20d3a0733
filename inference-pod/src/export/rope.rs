//! Rotary positions: queries and keys are turned by angles that grow with their place in the row.

use serde::Deserialize;

use super::{
    graph::{CONTRIB, Graph, ONNX, Value},
    proto::INT64,
};
use crate::model::ModelError;

/// How angles are made, as newer configurations say it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Parameters {
    pub(super) rope_type: Option<String>,
    pub(super) rope_theta: Option<f64>,
}

impl Parameters {
    /// The base of the frequencies, or what an older configuration says.
    ///
    /// # Errors
    /// If angles are stretched in a way that this program does not know.
    pub(super) fn theta(&self, older: f64) -> Result<f64, ModelError> {
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(self.rope_theta.unwrap_or(older)),
            Some(kind) => Err(ModelError::Unsupported(format!("its rotary positions are of type {kind:?}"))),
        }
    }
}

/// The cosines and sines of all angles, and where tokens are.
pub(super) struct Angles {
    table: Table,
    places: Places,
}

/// Where tokens are.
enum Places {
    /// One after the other in each row, from this position on.
    From(Value),
    /// Packed: the position of each, as [`EIGHT`] has it.
    Each { positions: Value },
}

/// Packed tokens are turned in rows of so many, which are none: the operator asks a GPU for a block for each row, and for each place
/// in it, and there can be 65,535 of either, which is one less than tokens; and it wants no more places in a row than the
/// table has positions. There are always a multiple of so many.
const EIGHT: usize = 8;

/// The cosines and sines of all angles: `[positions, dimension / 2]`.
pub(super) struct Table {
    pub(super) cos: Value,
    pub(super) sin: Value,
}

/// Angles for heads of so many numbers, for each of `positions`.
pub(super) fn angles(
    graph: &mut Graph<'_>,
    name: &str,
    theta: f64,
    dimension: usize,
    positions: usize,
) -> Angles {
    let packed = graph.packing().map(|packing| packing.positions.clone());
    let positions = if packed.is_some() { positions.max(EIGHT) } else { positions };
    let table = table(graph, name, theta, dimension, positions);
    let places = match packed {
        None => Places::From(graph.integers(&format!("{name}.from"), &[1], &[0])),
        Some(positions) => {
            let by_eight = graph.shape(&[-1, EIGHT as i64]);
            let positions = graph.cast(&positions, INT64);
            Places::Each { positions: graph.node(ONNX, "Reshape", &[&positions, &by_eight], Vec::new()) }
        }
    };
    Angles { table, places }
}

/// As [`angles`], for an operator that turns by itself.
pub(super) fn table(
    graph: &mut Graph<'_>,
    name: &str,
    theta: f64,
    dimension: usize,
    positions: usize,
) -> Table {
    let angles = angles_of(theta, dimension, positions);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
    let shape = [positions, dimension / 2];
    Table {
        cos: graph.constant(&format!("{name}.cos"), &shape, &cos),
        sin: graph.constant(&format!("{name}.sin"), &shape, &sin),
    }
}

/// All angles in 32 bits, as the reference computes them: `[positions, dimension / 2]`.
fn angles_of(theta: f64, dimension: usize, positions: usize) -> impl Iterator<Item = f32> {
    let frequency = move |i: usize| 1. / (theta as f32).powf((2 * i) as f32 / dimension as f32);
    (0..positions).flat_map(move |at| (0..dimension / 2).map(move |i| at as f32 * frequency(i)))
}

const ROTARY: &str = "RotaryEmbedding";

/// Turns `x`, whose tokens have heads of so many numbers together: `[batch, sequence, size]`, or `[tokens, size]`, or any other shape of the
/// same, if they are packed.
pub(super) fn turn(graph: &mut Graph<'_>, x: &str, size: usize, angles: &Angles) -> Value {
    let Angles { table: Table { cos, sin }, places } = angles;
    match places {
        Places::From(first) => graph.node(CONTRIB, ROTARY, &[x, first, cos, sin], Vec::new()),
        Places::Each { positions } => {
            let by_eight = graph.shape(&[-1, EIGHT as i64, size as i64]);
            let x = graph.node(ONNX, "Reshape", &[x, &by_eight], Vec::new());
            let x = graph.node(CONTRIB, ROTARY, &[&x, positions, cos, sin], Vec::new());
            let flat = graph.shape(&[-1, size as i64]);
            graph.node(ONNX, "Reshape", &[&x, &flat], Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pair_turns_by_one_and_later_ones_slower() {
        assert_eq!(angles_of(10_000., 4, 3).collect::<Vec<_>>(), [0., 0., 1., 0.01, 2., 0.02]);
    }

    #[test]
    fn newer_and_older_configurations_are_read() {
        let parameters = |text| serde_json::from_str::<Parameters>(text).expect("good parameters");
        let newer = parameters(r#"{"rope_type": "default", "rope_theta": 500.0}"#);
        assert_eq!(newer.theta(1.).ok(), Some(500.));
        assert_eq!(Parameters::default().theta(1.).ok(), Some(1.));
        let other = parameters(r#"{"rope_type": "yarn", "factor": 4.0}"#);
        assert!(other.theta(1.).is_err_and(|e| e.to_string().contains("yarn")));
    }
}
