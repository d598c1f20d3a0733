//! A dense layer behind the pooling, as sentence-transformers saves one: a folder with its configuration and weights.

use serde::{Deserialize, Serialize};

use super::{ModelError, files::SAFETENSORS, weights::Weights};
use crate::head::{Activation, Layer};

/// The layer, without its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dense {
    folder: String,
    from: usize,
    to: usize,
    bias: bool,
    /// The class that computes it, without its module.
    activation: String,
}

#[derive(Deserialize)]
struct Config {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default = "tanh")]
    activation_function: String,
}

fn yes() -> bool {
    true
}

fn tanh() -> String {
    "torch.nn.modules.activation.Tanh".to_owned()
}

impl Dense {
    /// Reads a layer's configuration, `{folder}/config.json`.
    ///
    /// # Errors
    /// If it is damaged, or its activation is not known.
    pub fn parse(folder: &str, text: &str) -> Result<Self, ModelError> {
        let file = format!("{folder}/config.json");
        let config: Config = serde_json::from_str(text).map_err(|e| ModelError::invalid(&file, e))?;
        if config.in_features == 0 || config.out_features == 0 {
            return Err(ModelError::invalid(&file, "a dense layer of no size"));
        }
        let class = config.activation_function.rsplit('.').next().unwrap_or_default().to_owned();
        activation(&class)?;
        let Config { in_features: from, out_features: to, bias, .. } = config;
        Ok(Self { folder: folder.to_owned(), from, to, bias, activation: class })
    }

    /// Numbers that it takes.
    pub fn takes(&self) -> usize {
        self.from
    }

    /// The file of its weights.
    pub fn file(&self) -> String {
        format!("{}/{SAFETENSORS}", self.folder)
    }

    /// Reads its weights.
    ///
    /// # Errors
    /// If they do not fit the configuration.
    pub fn layer(&self, weights: &Weights) -> Result<Layer, ModelError> {
        Ok(Layer {
            weight: weights.floats("linear.weight", &[self.to, self.from])?,
            bias: if self.bias { weights.floats("linear.bias", &[self.to])? } else { Vec::new() },
            from: self.from,
            activation: activation(&self.activation)?,
        })
    }
}

/// Refuses layers of which one does not take what the one before it gives.
///
/// # Errors
/// If there is such a layer.
pub fn check(layers: &[Dense]) -> Result<(), ModelError> {
    for pair in layers.windows(2) {
        if pair[0].to != pair[1].from {
            let what =
                format!("it takes {} numbers, and {} gives {}", pair[1].from, pair[0].folder, pair[0].to);
            return Err(ModelError::invalid(&format!("{}/config.json", pair[1].folder), what));
        }
    }
    Ok(())
}

fn activation(class: &str) -> Result<Activation, ModelError> {
    match class {
        "Identity" => Ok(Activation::Identity),
        "Tanh" => Ok(Activation::Tanh),
        "ReLU" => Ok(Activation::Relu),
        "Sigmoid" => Ok(Activation::Sigmoid),
        "SiLU" => Ok(Activation::Silu),
        other => Err(ModelError::Unsupported(format!("its dense layer has the activation {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(from: usize, to: usize) -> Dense {
        Dense::parse("2_Dense", &format!(r#"{{"in_features": {from}, "out_features": {to}}}"#)).expect("good")
    }

    #[test]
    fn a_layer_that_says_little_has_a_bias_and_a_tangent() {
        let dense = dense(4, 2);
        assert_eq!((dense.bias, dense.activation.as_str()), (true, "Tanh"));
        assert_eq!(dense.file(), "2_Dense/model.safetensors");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = r#"{"in_features": 4, "out_features": 2, "activation_function": "torch.nn.Mish"}"#;
        assert!(Dense::parse("2_Dense", text).is_err_and(|e| e.to_string().contains("Mish")));
        let text = r#"{"in_features": 0, "out_features": 2}"#;
        assert!(Dense::parse("2_Dense", text).is_err_and(|e| e.to_string().contains("2_Dense/config.json")));
        assert!(check(&[dense(4, 2), dense(2, 3)]).is_ok());
        assert!(check(&[dense(4, 2), dense(3, 3)]).is_err_and(|e| e.to_string().contains("takes 3")));
    }
}
