//! What is done to a pooled vector before it is finished: layers that a model has behind its network.

use crate::vector::dot;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It stays.
    Identity,
    /// The hyperbolic tangent.
    Tanh,
    /// What is below zero becomes zero.
    Relu,
    /// The logistic function.
    Sigmoid,
    /// The number by its logistic function.
    Silu,
}

/// One layer: a product, a bias, then an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `[to, from]`
    pub weight: Vec<f32>,
    /// `[to]`, or nothing.
    pub bias: Vec<f32>,
    /// Numbers that it takes.
    pub from: usize,
    /// Of each number that it gives.
    pub activation: Activation,
}

impl Activation {
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.),
            Self::Sigmoid => 1. / (1. + (-x).exp()),
            Self::Silu => x / (1. + (-x).exp()),
        }
    }
}

impl Layer {
    /// Of a vector of `from` numbers.
    fn of(&self, vector: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks(self.from.max(1));
        let products = rows.map(|row| dot(row, vector));
        let bias = self.bias.iter().copied().chain(std::iter::repeat(0.));
        products.zip(bias).map(|(x, bias)| self.activation.of(x + bias)).collect()
    }
}

/// A vector after all layers, in order.
pub fn apply(layers: &[Layer], vector: Vec<f32>) -> Vec<f32> {
    layers.iter().fold(vector, |vector, layer| layer.of(&vector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_follow_each_other() {
        let first = Layer {
            weight: vec![1., 2., 3., 4., 0., 1.],
            bias: vec![1., 0., -9.],
            from: 2,
            activation: Activation::Relu,
        };
        let second = Layer {
            weight: vec![1., 10., 100.],
            bias: Vec::new(),
            from: 3,
            activation: Activation::Identity,
        };
        assert_eq!(apply(&[first, second], vec![1., -1.]), [0.]);
        assert_eq!(apply(&[], vec![1., -1.]), [1., -1.]);
    }

    #[test]
    fn activations_at_one() {
        let at = |activation: Activation| (activation.of(1.) * 1000.).round();
        use Activation::{Identity, Relu, Sigmoid, Silu, Tanh};
        assert_eq!([Identity, Tanh, Relu, Sigmoid, Silu].map(at), [1000., 762., 1000., 731., 731.]);
        assert_eq!(Activation::Relu.of(-1.), 0.);
    }
}
