//! What stands between the two products of a feed-forward part.

use super::graph::{CONTRIB, Graph, ONNX, Value, float};
use crate::model::ModelError;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    /// Gelu approximated by a hyperbolic tangent.
    GeluTanh,
    Relu,
    Silu,
}

impl Activation {
    /// By the name that configurations have for it.
    pub(super) fn named(name: &str) -> Result<Self, ModelError> {
        match name {
            "gelu" | "gelu_python" => Ok(Self::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Ok(Self::GeluTanh),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            _ => Err(ModelError::Unsupported(format!("its activation is {name:?}"))),
        }
    }

    /// Of `x`.
    pub(super) fn of(self, graph: &mut Graph<'_>, x: &str) -> Value {
        match self {
            Self::Gelu => graph.node(CONTRIB, "Gelu", &[x], Vec::new()),
            Self::GeluTanh => graph.node(CONTRIB, "FastGelu", &[x], Vec::new()),
            Self::Relu => graph.node(ONNX, "Relu", &[x], Vec::new()),
            Self::Silu => graph.node(CONTRIB, "QuickGelu", &[x], vec![float("alpha", 1.)]),
        }
    }

    /// Of `x` and a bias.
    pub(super) fn of_sum(self, graph: &mut Graph<'_>, x: &str, bias: &str) -> Value {
        match self {
            Self::Gelu => graph.node(CONTRIB, "BiasGelu", &[x, bias], Vec::new()),
            Self::GeluTanh => graph.node(CONTRIB, "FastGelu", &[x, bias], Vec::new()),
            Self::Relu | Self::Silu => {
                let sum = graph.node(ONNX, "Add", &[x, bias], Vec::new());
                self.of(graph, &sum)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_refused() {
        assert_eq!(Activation::named("gelu").ok(), Some(Activation::Gelu));
        assert_eq!(Activation::named("gelu_pytorch_tanh").ok(), Some(Activation::GeluTanh));
        assert!(Activation::named("mish").is_err_and(|e| e.to_string().contains("mish")));
    }
}
