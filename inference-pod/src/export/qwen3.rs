//! Qwen3: a decoder, whose tokens look at what stands before them; several query heads share a key head.

use serde::Deserialize;

use super::{
    activation::Activation,
    distance, encoder,
    graph::{CONTRIB, Graph, ONNX, Part, Value, float, int},
    proto::{INT32, INT64},
    rope::{self, Angles, Parameters, Table},
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

/// Vectors of tokens.
pub(super) fn build(
    graph: &mut Graph<'_>,
    config: &Config,
    ids: &str,
    positions: usize,
) -> Result<Value, ModelError> {
    let own = config.read::<Own>()?.checked()?;
    let words = "embed_tokens.weight";
    let prefix = encoder::prefix(graph.weights(), &["", "model."], words)?;
    let back = match graph.packing() {
        None => Back::by_operator(graph, &own, ids, positions)?,
        Some(_) => Back::by_bias(graph, &own, ids, positions)?,
    };
    let share = if graph.packing().is_some() { SHARE } else { 1. };
    let mut qwen = Qwen { own: &own, prefix, share, graph };
    let mut sum = qwen.embed(&format!("{prefix}{words}"), config.vocab_size, ids)?;
    let mut x = qwen.normalise_sum("layers.0.input_layernorm", &sum)?;
    for layer in 0..own.num_hidden_layers {
        let more = qwen.attention(layer, &x, &back)?;
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

/// On GPUs, so much of all that layers add to a token's vector is added. What is normalised is the same, but the sum stays in the range of 16
/// bits: some of its numbers are very large for some texts, and would be infinite there.
const SHARE: f32 = 1. / 32.;

/// How a token sees what stands before it alone.
enum Back {
    /// The operator is made so, and turns queries and keys too.
    ByOperator {
        angles: Table,
        /// `[batch]`: where each row's last token stands.
        last: Value,
        /// How long rows are with padding.
        columns: Value,
    },
    /// Of packed tokens, by what is added to scores.
    ByBias { angles: Angles, bias: Value },
}

impl Back {
    fn by_bias(graph: &mut Graph<'_>, own: &Own, ids: &str, positions: usize) -> Result<Self, ModelError> {
        distance::check_table(graph, positions)?;
        let angles = rope::angles(graph, "angles", own.theta()?, own.dimension(), positions);
        let behind = distance::behind(graph, ids);
        Ok(Self::ByBias { angles, bias: distance::hide(graph, &behind) })
    }

    /// The operator wants to know how long rows are, so that the graph takes a mask.
    fn by_operator(
        graph: &mut Graph<'_>,
        own: &Own,
        ids: &str,
        positions: usize,
    ) -> Result<Self, ModelError> {
        let angles = rope::table(graph, "angles", own.theta()?, own.dimension(), positions);
        let mask = graph.input("attention_mask", INT64, &["batch", "sequence"]);
        let along = graph.integers("along_the_row", &[1], &[1]);
        let one = graph.integers("one_token", &[], &[1]);
        let count = graph.node(ONNX, "ReduceSum", &[&mask, &along], vec![int("keepdims", 0)]);
        let last = graph.node(ONNX, "Sub", &[&count, &one], Vec::new());
        let shape = graph.node(ONNX, "Shape", &[ids], Vec::new());
        let columns = graph.node(ONNX, "Gather", &[&shape, &one], vec![int("axis", 0)]);
        Ok(Self::ByOperator { angles, last: graph.cast(&last, INT32), columns: graph.cast(&columns, INT32) })
    }
}

struct Qwen<'g, 'w> {
    own: &'g Own,
    prefix: &'g str,
    /// As [`SHARE`].
    share: f32,
    graph: &'g mut Graph<'w>,
}

impl Qwen<'_, '_> {
    fn embed(&mut self, words: &str, vocabulary: usize, ids: &str) -> Result<Value, ModelError> {
        let x = self.graph.lookup(words, &[vocabulary, self.own.hidden_size], ids)?;
        if self.share == 1. {
            return Ok(x);
        }
        let share = self.graph.constant("share", &[], &[self.share]);
        Ok(self.graph.node(ONNX, "Mul", &[&x, &share], Vec::new()))
    }

    fn attention(&mut self, layer: usize, x: &str, back: &Back) -> Result<Value, ModelError> {
        let (h, d) = (self.own.hidden_size, self.own.dimension());
        let (heads, shared) = (self.own.num_attention_heads, self.own.num_key_value_heads);
        let name = |part: &str| format!("layers.{layer}.self_attn.{part}");
        let [query, key, value, out] = ["q_proj", "k_proj", "v_proj", "o_proj"]
            .map(|part| format!("{}{}.weight", self.prefix, name(part)));
        let parts = [(&query, heads), (&key, shared), (&value, shared)];
        let parts = parts.map(|(name, heads)| Part::whole(name, [heads * d, h]));
        let [query, key, value] = self.graph.linears(x, parts)?;
        let query = self.normalise_heads(&name("q_norm"), &query)?;
        let key = self.normalise_heads(&name("k_norm"), &key)?;
        let context = match back {
            Back::ByOperator { angles, last, columns } => {
                let [query, key] = [(query, heads), (key, shared)].map(|(x, heads)| {
                    let together = self.graph.shape(&[0, -1, (heads * d) as i64]);
                    self.graph.node(ONNX, "Reshape", &[&x, &together], Vec::new())
                });
                let inputs = [&query, &key, &value, "", "", last, columns, &angles.cos, &angles.sin];
                let heads = [("num_heads", heads), ("kv_num_heads", shared)];
                let heads = heads.map(|(name, heads)| int(name, heads as i64));
                let attributes = heads.into_iter().chain([int("do_rotary", 1)]).collect();
                // The two outputs for the keys and values of what would come next must be there.
                self.graph.node_of(CONTRIB, "GroupQueryAttention", &inputs, 3, attributes)
            }
            Back::ByBias { angles, bias } => {
                let query = rope::turn(self.graph, &query, heads * d, angles);
                let key = rope::turn(self.graph, &key, shared * d, angles);
                let [key, value] = [key, value].map(|x| self.for_each_head(&x));
                encoder::attend(self.graph, [&query, &key, &value], "", heads, bias)
            }
        };
        let [more] = self.graph.linears(&context, [Part::whole(&out, [h, heads * d]).times(self.share)])?;
        Ok(more)
    }

    /// Keys or values of packed tokens, which several heads share, once for each head.
    fn for_each_head(&mut self, x: &str) -> Value {
        let (heads, shared) = (self.own.num_attention_heads, self.own.num_key_value_heads);
        let [heads, shared, d] = [heads, shared, self.own.dimension()].map(|n| n as i64);
        if heads == shared {
            return x.to_owned();
        }
        let apart = self.graph.shape(&[-1, shared, 1, d]);
        let x = self.graph.node(ONNX, "Reshape", &[x, &apart], Vec::new());
        let each = self.graph.shape(&[1, 1, heads / shared, 1]);
        let x = self.graph.node(ONNX, "Expand", &[&x, &each], Vec::new());
        let together = self.graph.shape(&[-1, heads * d]);
        self.graph.node(ONNX, "Reshape", &[&x, &together], Vec::new())
    }

    /// What comes of the second half of it is as small as what is added shall be, so that no number on the way is too large.
    fn feed_forward(&mut self, layer: usize, x: &str) -> Result<Value, ModelError> {
        let (h, m) = (self.own.hidden_size, self.own.intermediate_size);
        let activation = Activation::named(&self.own.hidden_act)?;
        let [gate, up, down] = ["gate", "up", "down"]
            .map(|part| format!("{}layers.{layer}.mlp.{part}_proj.weight", self.prefix));
        let up = Part::whole(&up, [m, h]).times(self.share);
        let [gate, up] = self.graph.linears(x, [Part::whole(&gate, [m, h]), up])?;
        let gated = encoder::gated(self.graph, &gate, &up, activation);
        self.graph.linear(&gated, &down, m, h)
    }

    /// Normalises each head by itself: `[.., dimension]`, with the tokens of a row, if there are rows, and their heads in one direction.
    fn normalise_heads(&mut self, norm: &str, x: &str) -> Result<Value, ModelError> {
        let d = self.own.dimension();
        let apart = self.graph.shape(&[0, -1, d as i64]);
        let x = self.graph.node(ONNX, "Reshape", &[x, &apart], Vec::new());
        self.normalise(norm, &x, d, self.own.rms_norm_eps)
    }

    /// Normalises what is the sum of all that layers gave so far.
    fn normalise_sum(&mut self, norm: &str, sum: &str) -> Result<Value, ModelError> {
        self.normalise(norm, sum, self.own.hidden_size, self.epsilon_of_sum())
    }

    fn normalise(&mut self, norm: &str, x: &str, size: usize, epsilon: f32) -> Result<Value, ModelError> {
        let gamma = self.gamma(norm, size)?;
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        Ok(self.graph.node(ONNX, "SimplifiedLayerNormalization", &[x, &gamma], attributes))
    }

    fn add_and_normalise(&mut self, norm: &str, more: &str, sum: &str) -> Result<(Value, Value), ModelError> {
        let gamma = self.gamma(norm, self.own.hidden_size)?;
        let epsilon = vec![float("epsilon", self.epsilon_of_sum())];
        let inputs = [more, sum, &gamma];
        Ok(self.graph.node_and(CONTRIB, "SkipSimplifiedLayerNormalization", &inputs, 3, epsilon))
    }

    /// It is added to squares.
    fn epsilon_of_sum(&self) -> f32 {
        self.own.rms_norm_eps * self.share * self.share
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
