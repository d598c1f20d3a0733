//! Normalised sums, by an operator of our own on CPUs and by ONNX Runtime's on GPUs.

use super::{
    OWN,
    graph::{CONTRIB, Graph, Value, float},
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
        let (domain, operator, _) = self.normalises();
        let inputs = [x, skip, &norm.gamma, &norm.beta, bias];
        self.node(domain, operator, &inputs, vec![float(EPSILON, norm.epsilon)])
    }

    /// As [`Graph::normalised_sum`], of two vectors, with the sum itself.
    pub(super) fn normalised_sum_and_sum(&mut self, [x, skip]: [&str; 2], norm: &Norm) -> (Value, Value) {
        let (domain, operator, sum) = self.normalises();
        let inputs = [x, skip, &norm.gamma, &norm.beta, ""];
        self.node_and(domain, operator, &inputs, sum, vec![float(EPSILON, norm.epsilon)])
    }

    /// The operator, and which of its outputs is the sum.
    fn normalises(&self) -> (&'static str, &'static str, usize) {
        match self.packing() {
            None => (OWN, NORMALISED_SUM, 1),
            Some(_) => (CONTRIB, "SkipLayerNormalization", 3),
        }
    }
}
