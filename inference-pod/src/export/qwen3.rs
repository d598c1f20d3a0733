//! Qwen3: a decoder, whose tokens look at what stands before them; several query heads share a key head.

use serde::Deserialize;

use super::{
    activation::Activation,
    encoder,
    graph::{CONTRIB, Graph, ONNX, Part, Value, float, int, output},
    proto::{INT32, INT64},
    rope::{self, Parameters, Table},
};
use crate::model::{Config, ModelError, files::CONFIG};

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    intermediate_size: usize,
    rms_norm_eps: f32,
    #[serde(default = "activation")]
    hidden_act: String,
    #[serde(default = "theta")]
    rope_theta: f64,
    rope_scaling: Option<Parameters>,
    rope_parameters: Option<Parameters>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
}

fn activation() -> String {
    "silu".to_owned()
}

fn theta() -> f64 {
    10_000.
}

impl Own {
    fn checked(self) -> Result<Self, ModelError> {
        if self.attention_bias {
            return Err(ModelError::Unsupported("its layers have biases".to_owned()));
        }
        if self.use_sliding_window {
            return Err(ModelError::Unsupported("its tokens look through a sliding window".to_owned()));
        }
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        if heads == 0 || shared == 0 || !heads.is_multiple_of(shared) {
            return Err(ModelError::invalid(CONFIG, format!("{heads} heads cannot share {shared} keys")));
        }
        Ok(self)
    }

    fn dimension(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    fn theta(&self) -> Result<f64, ModelError> {
        let newer = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        newer.map_or(Ok(self.rope_theta), |newer| newer.theta(self.rope_theta))
    }
}

/// Vectors of tokens. The operator for attention wants to know how long rows are, so that the graph takes a mask.
pub(super) fn build(
    graph: &mut Graph<'_>,
    config: &Config,
    ids: &str,
    positions: usize,
) -> Result<Value, ModelError> {
    let own = config.read::<Own>()?.checked()?;
    let words = "embed_tokens.weight";
    let prefix = encoder::prefix(graph.weights(), &["", "model."], words)?;
    let angles = rope::table(graph, "angles", own.theta()?, own.dimension(), positions);
    let lengths = Lengths::of(graph, ids);
    let mut sum = graph.lookup(&format!("{prefix}{words}"), &[config.vocab_size, own.hidden_size], ids)?;
    let mut qwen = Qwen { own: &own, prefix, graph };
    let mut x = qwen.normalise("layers.0.input_layernorm", &sum, own.hidden_size)?;
    for layer in 0..own.num_hidden_layers {
        let more = qwen.attention(layer, &x, &angles, &lengths)?;
        (x, sum) =
            qwen.add_and_normalise(&format!("layers.{layer}.post_attention_layernorm"), &more, &sum)?;
        let more = qwen.feed_forward(layer, &x)?;
        let next = match layer + 1 {
            next if next < own.num_hidden_layers => format!("layers.{next}.input_layernorm"),
            _ => "norm".to_owned(),
        };
        (x, sum) = qwen.add_and_normalise(&next, &more, &sum)?;
    }
    Ok(x)
}

/// What the operator for attention wants to know of rows.
struct Lengths {
    /// `[batch]`: where each row's last token stands.
    last: Value,
    /// How long rows are with padding.
    columns: Value,
}

impl Lengths {
    fn of(graph: &mut Graph<'_>, ids: &str) -> Self {
        let mask = graph.input("attention_mask", INT64, &["batch", "sequence"]);
        let along = graph.integers("along_the_row", &[1], &[1]);
        let one = graph.integers("one_token", &[], &[1]);
        let count = graph.node(ONNX, "ReduceSum", &[&mask, &along], vec![int("keepdims", 0)]);
        let last = graph.node(ONNX, "Sub", &[&count, &one], Vec::new());
        let shape = graph.node(ONNX, "Shape", &[ids], Vec::new());
        let columns = graph.node(ONNX, "Gather", &[&shape, &one], vec![int("axis", 0)]);
        Self { last: graph.cast(&last, INT32), columns: graph.cast(&columns, INT32) }
    }
}

struct Qwen<'g, 'w> {
    own: &'g Own,
    prefix: &'g str,
    graph: &'g mut Graph<'w>,
}

impl Qwen<'_, '_> {
    fn attention(
        &mut self,
        layer: usize,
        x: &str,
        angles: &Table,
        lengths: &Lengths,
    ) -> Result<Value, ModelError> {
        let (h, d) = (self.own.hidden_size, self.own.dimension());
        let (heads, shared) = (self.own.num_attention_heads, self.own.num_key_value_heads);
        let name = |part: &str| format!("layers.{layer}.self_attn.{part}");
        let [query, key, value, out] = ["q_proj", "k_proj", "v_proj", "o_proj"]
            .map(|part| format!("{}{}.weight", self.prefix, name(part)));
        let parts = [(&query, heads), (&key, shared), (&value, shared)];
        let parts = parts.map(|(name, heads)| Part::whole(name, [heads * d, h]));
        let [query, key, value] = self.graph.linears(x, parts)?;
        let query = self.normalise_heads(&name("q_norm"), &query, heads)?;
        let key = self.normalise_heads(&name("k_norm"), &key, shared)?;
        let Lengths { last, columns } = lengths;
        let inputs = [&query, &key, &value, "", "", last, columns, &angles.cos, &angles.sin];
        let attributes =
            vec![int("num_heads", heads as i64), int("kv_num_heads", shared as i64), int("do_rotary", 1)];
        // The two outputs for the keys and values of what would come next must be there.
        let context = self.graph.node_of(CONTRIB, "GroupQueryAttention", &inputs, 3, attributes);
        self.graph.linear(&context, &out, heads * d, h)
    }

    fn feed_forward(&mut self, layer: usize, x: &str) -> Result<Value, ModelError> {
        let (h, m) = (self.own.hidden_size, self.own.intermediate_size);
        let activation = Activation::named(&self.own.hidden_act)?;
        let [gate, up, down] = ["gate", "up", "down"]
            .map(|part| format!("{}layers.{layer}.mlp.{part}_proj.weight", self.prefix));
        let [gate, up] = self.graph.linears(x, [&gate, &up].map(|name| Part::whole(name, [m, h])))?;
        let gated = encoder::gated(self.graph, &gate, &up, activation);
        self.graph.linear(&gated, &down, m, h)
    }

    /// Normalises each head by itself.
    fn normalise_heads(&mut self, norm: &str, x: &str, heads: usize) -> Result<Value, ModelError> {
        let d = self.own.dimension();
        let [apart, together] = [d, heads * d].map(|size| {
            let shape = [0, -1, size as i64];
            self.graph.integers(&format!("{norm}.rows_of_{size}"), &[3], &shape)
        });
        let x = self.graph.node(ONNX, "Reshape", &[x, &apart], Vec::new());
        let x = self.normalise(norm, &x, d)?;
        Ok(self.graph.node(ONNX, "Reshape", &[&x, &together], Vec::new()))
    }

    fn normalise(&mut self, norm: &str, x: &str, size: usize) -> Result<Value, ModelError> {
        let gamma = self.gamma(norm, size)?;
        let attributes = vec![int("axis", -1), float("epsilon", self.own.rms_norm_eps)];
        Ok(self.graph.node(ONNX, "SimplifiedLayerNormalization", &[x, &gamma], attributes))
    }

    fn add_and_normalise(&mut self, norm: &str, more: &str, sum: &str) -> Result<(Value, Value), ModelError> {
        let gamma = self.gamma(norm, self.own.hidden_size)?;
        let epsilon = vec![float("epsilon", self.own.rms_norm_eps)];
        let inputs = [more, sum, &gamma];
        let x = self.graph.node_of(CONTRIB, "SkipSimplifiedLayerNormalization", &inputs, 4, epsilon);
        let sum = output(&x, 3);
        Ok((x, sum))
    }

    fn gamma(&mut self, norm: &str, size: usize) -> Result<Value, ModelError> {
        self.graph.weight(&format!("{}{norm}.weight", self.prefix), &[size])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str) -> Result<f64, String> {
        let text = format!(
            r#"{{"model_type": "qwen3", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "head_dim": 4,
                "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 8, "rms_norm_eps": 1e-6
                {more}}}"#
        );
        let own = Config::parse(&text).and_then(|config| config.read::<Own>()?.checked());
        own.and_then(|own| own.theta()).map_err(|e| e.to_string())
    }

    #[test]
    fn newer_and_older_configurations_are_read_or_refused() {
        assert_eq!(check(r#", "rope_theta": 5, "rope_scaling": null"#), Ok(5.));
        assert_eq!(check(r#", "rope_parameters": {"rope_type": "default", "rope_theta": 7}"#), Ok(7.));
        for (more, word) in [
            // Once, the program panicked.
            (r#", "num_attention_heads": 0"#, "0 heads"),
            (r#", "rope_scaling": {"rope_type": "yarn", "factor": 4}"#, "yarn"),
            (r#", "attention_bias": true"#, "biases"),
            (r#", "use_sliding_window": true"#, "window"),
        ] {
            assert!(check(more).is_err_and(|e| e.contains(word)), "{more}");
        }
    }
}
