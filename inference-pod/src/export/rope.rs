//! Rotary positions: queries and keys are turned by angles that grow with their place in the row.

use serde::Deserialize;

use super::graph::{CONTRIB, Graph, Value};
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

/// The cosines and sines of all angles, and the position of the first token.
pub(super) struct Angles {
    table: Table,
    from: Value,
}

/// The cosines and sines of all angles: `[positions, dimension / 2]`.
pub(super) struct Table {
    pub(super) cos: Value,
    pub(super) sin: Value,
}

/// Angles for heads of `dimension` numbers, for each of `positions`.
pub(super) fn angles(
    graph: &mut Graph<'_>,
    name: &str,
    theta: f64,
    dimension: usize,
    positions: usize,
) -> Angles {
    let table = table(graph, name, theta, dimension, positions);
    Angles { table, from: graph.integers(&format!("{name}.from"), &[1], &[0]) }
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

/// Turns `x`, which is `[batch, sequence, heads * dimension]`.
pub(super) fn turn(graph: &mut Graph<'_>, x: &str, angles: &Angles) -> Value {
    let Angles { table: Table { cos, sin }, from } = angles;
    graph.node(CONTRIB, "RotaryEmbedding", &[x, from, cos, sin], Vec::new())
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
