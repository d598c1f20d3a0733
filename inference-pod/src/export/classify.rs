//! What stands behind a network that classifies: from the vectors of an input's tokens to a number for each label.

use serde::Deserialize;

use super::{
    activation::Activation,
    graph::{Graph, ONNX, Value, float, int, ints},
};
use crate::model::{Config, ModelError};

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    hidden_size: Option<usize>,
    /// The same in DistilBERT.
    dim: Option<usize>,
    #[serde(default = "first")]
    classifier_pooling: String,
    #[serde(default)]
    classifier_bias: bool,
    #[serde(default = "activation")]
    classifier_activation: String,
    #[serde(default = "epsilon")]
    norm_eps: f32,
}

fn first() -> String {
    "cls".to_owned()
}

fn activation() -> String {
    "gelu".to_owned()
}

fn epsilon() -> f32 {
    1e-5
}

/// Numbers of labels, `[batch, labels]`, from vectors of tokens, of rows without padding.
pub(super) fn build(
    graph: &mut Graph<'_>,
    config: &Config,
    labels: usize,
    tokens: &str,
) -> Result<Value, ModelError> {
    let own: Own = config.read()?;
    let size = own.hidden_size.or(own.dim).unwrap_or_default();
    let head = &mut Head { graph, size };
    match config.model_type.as_str() {
        "bert" => {
            let x = head.first(tokens);
            let x = head.dense("bert.pooler.dense", &x, size)?;
            let x = head.tanh(&x);
            head.dense("classifier", &x, labels)
        }
        "roberta" | "xlm-roberta" | "camembert" => {
            let x = head.first(tokens);
            let x = head.dense("classifier.dense", &x, size)?;
            let x = head.tanh(&x);
            head.dense("classifier.out_proj", &x, labels)
        }
        "distilbert" => {
            let x = head.first(tokens);
            let x = head.dense("pre_classifier", &x, size)?;
            let x = Activation::Relu.of(head.graph, &x);
            head.dense("classifier", &x, labels)
        }
        "modernbert" => head.modern(&own, labels, tokens),
        other => Err(ModelError::Unsupported(format!(
            "what stands behind a network of model type {other:?} that classifies is not known; if the model ships a \
             graph, name it with --file"
        ))),
    }
}

struct Head<'g, 'w> {
    graph: &'g mut Graph<'w>,
    /// Numbers in a token's vector.
    size: usize,
}

impl Head<'_, '_> {
    /// ModernBERT's: pooled either way, and normalised before the last product.
    fn modern(&mut self, own: &Own, labels: usize, tokens: &str) -> Result<Value, ModelError> {
        let x = match own.classifier_pooling.as_str() {
            "cls" => self.first(tokens),
            "mean" => self.mean(tokens),
            other => return Err(ModelError::Unsupported(format!("its classifier_pooling is {other:?}"))),
        };
        let x = match own.classifier_bias {
            true => self.dense("head.dense", &x, self.size)?,
            false => self.graph.linear(&x, "head.dense.weight", self.size, self.size)?,
        };
        let x = Activation::named(&own.classifier_activation)?.of(self.graph, &x);
        let gamma = self.graph.weight("head.norm.weight", &[self.size])?;
        let attributes = vec![int("axis", -1), float("epsilon", own.norm_eps)];
        let x = self.graph.node(ONNX, "LayerNormalization", &[&x, &gamma], attributes);
        self.dense("classifier", &x, labels)
    }

    /// The vector of each input's first token.
    fn first(&mut self, tokens: &str) -> Value {
        let first = self.graph.integers("first_token", &[], &[0]);
        self.graph.node(ONNX, "Gather", &[tokens, &first], vec![int("axis", 1)])
    }

    /// The mean of each input's tokens. Pooling goes row by row, so that a mean does not depend on the batch to the last
    /// bit, as one by `ReduceMean` does.
    fn mean(&mut self, tokens: &str) -> Value {
        let turn = vec![ints("perm", &[0, 2, 1])];
        let turned = self.graph.node(ONNX, "Transpose", &[tokens], turn);
        let means = self.graph.node(ONNX, "GlobalAveragePool", &[&turned], Vec::new());
        let number = self.graph.integers("of_tokens", &[1], &[2]);
        self.graph.node(ONNX, "Squeeze", &[&means, &number], Vec::new())
    }

    /// A product and its bias.
    fn dense(&mut self, name: &str, x: &str, to: usize) -> Result<Value, ModelError> {
        let product = self.graph.linear(x, &format!("{name}.weight"), self.size, to)?;
        let bias = self.graph.weight(&format!("{name}.bias"), &[to])?;
        Ok(self.graph.node(ONNX, "Add", &[&product, &bias], Vec::new()))
    }

    fn tanh(&mut self, x: &str) -> Value {
        self.graph.node(ONNX, "Tanh", &[x], Vec::new())
    }
}
