//! What stands behind a network that classifies: from the vectors of an input's tokens to a number for each label.

use serde::Deserialize;

use super::{
    activation::Activation,
    graph::{Graph, ONNX, Value, float, int, ints},
};
use crate::{
    model::{Config, ModelError},
    pooling::Pooling,
};

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    hidden_size: Option<usize>,
    /// The same in DistilBERT.
    dim: Option<usize>,
    #[serde(default = "cls")]
    classifier_pooling: String,
    #[serde(default)]
    classifier_bias: bool,
    #[serde(default = "activation")]
    classifier_activation: String,
    #[serde(default = "epsilon")]
    norm_eps: f32,
}

fn cls() -> String {
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
    let pooled = match pooling(config)? {
        Pooling::Mean => mean(graph, tokens),
        _ => first(graph, tokens),
    };
    of_pooled(graph, config, labels, &pooled)
}

/// How the vectors of an input's tokens become the one that it is classified by: that of the first, or the mean.
pub(super) fn pooling(config: &Config) -> Result<Pooling, ModelError> {
    let own: Own = config.read()?;
    match (config.model_type.as_str(), own.classifier_pooling.as_str()) {
        ("modernbert", "mean") => Ok(Pooling::Mean),
        ("modernbert", other) if other != "cls" => {
            Err(ModelError::Unsupported(format!("its classifier_pooling is {other:?}")))
        }
        _ => Ok(Pooling::Cls),
    }
}

/// Numbers of labels, `[batch, labels]`, from one vector of each input.
pub(super) fn of_pooled(
    graph: &mut Graph<'_>,
    config: &Config,
    labels: usize,
    x: &str,
) -> Result<Value, ModelError> {
    let own: Own = config.read()?;
    let size = own.hidden_size.or(own.dim).unwrap_or_default();
    let head = &mut Head { graph, size };
    match config.model_type.as_str() {
        "bert" => {
            let x = head.dense("bert.pooler.dense", x, size)?;
            let x = head.tanh(&x);
            head.dense("classifier", &x, labels)
        }
        "roberta" | "xlm-roberta" | "camembert" => {
            let x = head.dense("classifier.dense", x, size)?;
            let x = head.tanh(&x);
            head.dense("classifier.out_proj", &x, labels)
        }
        "distilbert" => {
            let x = head.dense("pre_classifier", x, size)?;
            let x = Activation::Relu.of(head.graph, &x);
            head.dense("classifier", &x, labels)
        }
        "modernbert" => head.modern(&own, labels, x),
        other => Err(ModelError::Unsupported(format!(
            "what stands behind a network of model type {other:?} that classifies is not known; if the model ships a \
             graph, name it with --file"
        ))),
    }
}

/// The vector of each input's first token.
fn first(graph: &mut Graph<'_>, tokens: &str) -> Value {
    let first = graph.integers("first_token", &[], &[0]);
    graph.node(ONNX, "Gather", &[tokens, &first], vec![int("axis", 1)])
}

/// The mean of each input's tokens. Pooling goes row by row, so that a mean does not depend on the batch to the last
/// bit, as one by `ReduceMean` does.
fn mean(graph: &mut Graph<'_>, tokens: &str) -> Value {
    let turn = vec![ints("perm", &[0, 2, 1])];
    let turned = graph.node(ONNX, "Transpose", &[tokens], turn);
    let means = graph.node(ONNX, "GlobalAveragePool", &[&turned], Vec::new());
    let number = graph.integers("of_tokens", &[1], &[2]);
    graph.node(ONNX, "Squeeze", &[&means, &number], Vec::new())
}

struct Head<'g, 'w> {
    graph: &'g mut Graph<'w>,
    /// Numbers in a token's vector.
    size: usize,
}

impl Head<'_, '_> {
    /// ModernBERT's, which is normalised before the last product.
    fn modern(&mut self, own: &Own, labels: usize, x: &str) -> Result<Value, ModelError> {
        let x = match own.classifier_bias {
            true => self.dense("head.dense", x, self.size)?,
            false => self.graph.linear(x, "head.dense.weight", self.size, self.size)?,
        };
        let x = Activation::named(&own.classifier_activation)?.of(self.graph, &x);
        let gamma = self.graph.weight("head.norm.weight", &[self.size])?;
        let attributes = vec![int("axis", -1), float("epsilon", own.norm_eps)];
        let x = self.graph.node(ONNX, "LayerNormalization", &[&x, &gamma], attributes);
        self.dense("classifier", &x, labels)
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
