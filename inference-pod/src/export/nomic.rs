//! NomicBERT: BERT that turns positions instead of adding them, gates its feed-forward part and has no biases but in
//! norms.

use serde::Deserialize;

use super::{
    activation::Activation,
    encoder,
    graph::{Graph, ONNX, Part, Value, float, int},
    norm::Norm,
    rope::{self, Angles, Parameters},
};
use crate::model::{Config, ModelError};

/// Its own part of `config.json`, with the names of the original and those of the transformers library.
#[derive(Deserialize)]
struct Own {
    #[serde(alias = "n_embd")]
    hidden_size: usize,
    #[serde(alias = "n_layer")]
    num_hidden_layers: usize,
    #[serde(alias = "n_head")]
    num_attention_heads: usize,
    #[serde(alias = "n_inner")]
    intermediate_size: usize,
    #[serde(alias = "layer_norm_epsilon", default = "epsilon")]
    layer_norm_eps: f32,
    #[serde(alias = "activation_function", default = "activation")]
    hidden_act: String,
    #[serde(default = "types")]
    type_vocab_size: usize,
    #[serde(default = "base")]
    rotary_emb_base: f64,
    #[serde(default = "whole")]
    rotary_emb_fraction: f64,
    rotary_scaling_factor: Option<f64>,
    #[serde(default)]
    rope_parameters: Parameters,
    #[serde(default)]
    rotary_emb_interleaved: bool,
    #[serde(default)]
    prenorm: bool,
    #[serde(default)]
    qkv_proj_bias: bool,
    #[serde(default)]
    mlp_fc1_bias: bool,
    #[serde(default)]
    mlp_fc2_bias: bool,
    #[serde(default)]
    num_experts: usize,
}

fn epsilon() -> f32 {
    1e-12
}

fn activation() -> String {
    "swiglu".to_owned()
}

fn types() -> usize {
    2
}

fn base() -> f64 {
    1000.
}

fn whole() -> f64 {
    1.
}

impl Own {
    fn checked(self) -> Result<Self, ModelError> {
        let unsupported = [
            (self.num_experts > 0, "its layers have experts"),
            (self.prenorm, "it normalises before its layers"),
            (self.rotary_emb_interleaved, "its rotary positions are interleaved"),
            (self.rotary_emb_fraction != 1., "its rotary positions are for a part of each head"),
            (self.rotary_scaling_factor.is_some(), "its rotary positions are stretched"),
            (self.qkv_proj_bias || self.mlp_fc1_bias || self.mlp_fc2_bias, "its layers have biases"),
        ];
        if let Some((_, what)) = unsupported.into_iter().find(|(is_so, _)| *is_so) {
            return Err(ModelError::Unsupported(what.to_owned()));
        }
        if !matches!(self.hidden_act.as_str(), "swiglu" | "silu") {
            return Err(ModelError::Unsupported(format!("its activation is {:?}", self.hidden_act)));
        }
        encoder::check_heads(self.hidden_size, self.num_attention_heads)?;
        Ok(self)
    }
}

/// Vectors of tokens.
pub(super) fn build(
    graph: &mut Graph<'_>,
    config: &Config,
    ids: &str,
    positions: usize,
) -> Result<Value, ModelError> {
    let own = config.read::<Own>()?.checked()?;
    let words = "embeddings.word_embeddings.weight";
    let prefix = encoder::prefix(graph.weights(), &["", "nomic_bert.", "bert."], words)?;
    let theta = own.rope_parameters.theta(own.rotary_emb_base)?;
    let dimension = own.hidden_size / own.num_attention_heads;
    let angles = rope::angles(graph, "angles", theta, dimension, positions);
    let mut nomic = Nomic { own: &own, prefix, graph };
    let mut x = nomic.embed(config.vocab_size, ids)?;
    for layer in 0..own.num_hidden_layers {
        x = nomic.layer(&format!("encoder.layers.{layer}"), &x, &angles)?;
    }
    Ok(x)
}

struct Nomic<'g, 'w> {
    own: &'g Own,
    prefix: &'g str,
    graph: &'g mut Graph<'w>,
}

impl Nomic<'_, '_> {
    /// There is one type of token, so its row is added to all.
    fn embed(&mut self, vocabulary: usize, ids: &str) -> Result<Value, ModelError> {
        let hidden = self.own.hidden_size;
        let [words, types] =
            ["word", "token_type"].map(|kind| self.name(&format!("embeddings.{kind}_embeddings.weight")));
        let x = self.graph.lookup(&words, &[vocabulary, hidden], ids)?;
        let kind = self.graph.rows(&types, &[self.own.type_vocab_size, hidden], 0..1)?;
        let x = self.graph.node(ONNX, "Add", &[&x, &kind], Vec::new());
        let [gamma, beta] = self.norm("emb_ln")?;
        let attributes = vec![int("axis", -1), float("epsilon", self.own.layer_norm_eps)];
        Ok(self.graph.node(ONNX, "LayerNormalization", &[&x, &gamma, &beta], attributes))
    }

    fn layer(&mut self, layer: &str, x: &str, angles: &Angles) -> Result<Value, ModelError> {
        let Own { hidden_size: h, intermediate_size: m, num_attention_heads: heads, .. } = *self.own;
        let name = |part: &str| self.name(&format!("{layer}.{part}.weight"));
        let [packed, out, up, gate, down] =
            [name("attn.Wqkv"), name("attn.out_proj"), name("mlp.fc11"), name("mlp.fc12"), name("mlp.fc2")];
        let context = encoder::rotary_attention(self.graph, &packed, [h, heads], x, angles, "")?;
        let y = self.graph.linear(&context, &out, h, h)?;
        let x = self.add_and_normalise(&format!("{layer}.norm1"), &y, x)?;
        let [gate, up] = self.graph.linears(&x, [&gate, &up].map(|name| Part::whole(name, [m, h])))?;
        let y = encoder::gated(self.graph, &gate, &up, Activation::Silu);
        let y = self.graph.linear(&y, &down, m, h)?;
        self.add_and_normalise(&format!("{layer}.norm2"), &y, &x)
    }

    fn add_and_normalise(&mut self, norm: &str, x: &str, skip: &str) -> Result<Value, ModelError> {
        let [gamma, beta] = self.norm(norm)?;
        let norm = Norm { gamma, beta, epsilon: self.own.layer_norm_eps };
        Ok(self.graph.normalised_sum([x, skip, ""], &norm))
    }

    fn norm(&mut self, norm: &str) -> Result<[Value; 2], ModelError> {
        let hidden = [self.own.hidden_size];
        let [gamma, beta] = ["weight", "bias"].map(|part| self.name(&format!("{norm}.{part}")));
        Ok([self.graph.weight(&gamma, &hidden)?, self.graph.weight(&beta, &hidden)?])
    }

    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str) -> Result<Own, String> {
        let text = format!(
            r#"{{"model_type": "nomic_bert", "vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_inner": 8,
                "activation_function": "swiglu" {more}}}"#
        );
        Config::parse(&text).and_then(|config| config.read::<Own>()?.checked()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_it_does_not_know_is_refused_by_name() {
        assert_eq!(check("").map(|own| own.rotary_emb_base), Ok(1000.));
        for (more, word) in [
            (r#", "num_experts": 8"#, "experts"),
            (r#", "prenorm": true"#, "before"),
            (r#", "rotary_emb_fraction": 0.5"#, "part of each head"),
            (r#", "rotary_scaling_factor": 2.0"#, "stretched"),
            (r#", "qkv_proj_bias": true"#, "biases"),
        ] {
            assert!(check(more).is_err_and(|e| e.contains(word)), "{more}");
        }
    }
}
