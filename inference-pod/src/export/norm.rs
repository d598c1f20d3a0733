//! Normalised sums, by an operator of our own on CPUs and by ONNX Runtime's on GPUs.

use super::{
    OWN,
    graph::{CONTRIB, Graph, Value, float, output},
};

/// The normalised sum of two vectors, and perhaps a bias.
pub const NORMALISED_SUM: &str = "NormalisedSum";
/// The attribute that keeps it from dividing by zero.
pub const EPSILON: &str = "epsilon";

/// What is done to a sum: gamma and beta, of which the latter may be empty, and epsilon.
pub(super) struct Norm {
    pub(super) gamma: Value,
    pub(super) beta: Value,
    pub(super) epsilon: f32,
}

impl Graph<'_> {
    /// `x` and `skip` and a bias, which may be empty, added and normalised.
    pub(super) fn normalised_sum(&mut self, [x, skip, bias]: [&str; 3], norm: &Norm) -> Value {
        self.normalised_sum_of([x, skip, bias], norm, 1)
    }

    /// As [`Graph::normalised_sum`], of two vectors, with the sum itself.
    pub(super) fn normalised_sum_and_sum(&mut self, [x, skip]: [&str; 2], norm: &Norm) -> (Value, Value) {
        let normalised = self.normalised_sum_of([x, skip, ""], norm, 2);
        let sum = output(&normalised, 1);
        (normalised, sum)
    }

    fn normalised_sum_of(&mut self, [x, skip, bias]: [&str; 3], norm: &Norm, outputs: usize) -> Value {
        let inputs = [x, skip, &norm.gamma, &norm.beta, bias];
        if self.packing().is_some() {
            let epsilon = vec![float(EPSILON, norm.epsilon)];
            return self.node(CONTRIB, "SkipLayerNormalization", &inputs, epsilon);
        }
        self.node_of(OWN, NORMALISED_SUM, &inputs, outputs, vec![float(EPSILON, norm.epsilon)])
    }
}
