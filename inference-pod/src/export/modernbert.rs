//! ModernBERT: normalises first, turns positions, gates its feed-forward part, and looks far in every third layer only.

use serde::Deserialize;

use super::{
    activation::Activation,
    distance, encoder,
    graph::{Graph, ONNX, Part, Value, float, int},
    norm::Norm,
    rope::{self, Angles, Parameters},
};
use crate::model::{Config, ModelError};

/// Its own part of `config.json`.
#[derive(Deserialize)]
struct Own {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default = "activation")]
    hidden_activation: String,
    #[serde(default = "epsilon")]
    norm_eps: f32,
    #[serde(default = "window")]
    local_attention: i64,
    #[serde(default = "every")]
    global_attn_every_n_layers: usize,
    layer_types: Option<Vec<String>>,
    #[serde(default = "far")]
    global_rope_theta: f64,
    local_rope_theta: Option<f64>,
    rope_scaling: Option<Parameters>,
    #[serde(default)]
    rope_parameters: Ropes,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

/// Newer configurations have one for each kind of layer.
#[derive(Default, Deserialize)]
struct Ropes {
    #[serde(default)]
    full_attention: Parameters,
    #[serde(default)]
    sliding_attention: Parameters,
}

fn activation() -> String {
    "gelu".to_owned()
}

fn epsilon() -> f32 {
    1e-5
}

fn window() -> i64 {
    128
}

fn every() -> usize {
    3
}

fn far() -> f64 {
    160_000.
}

impl Own {
    fn checked(self) -> Result<Self, ModelError> {
        if self.norm_bias || self.attention_bias || self.mlp_bias {
            return Err(ModelError::Unsupported("its layers have biases".to_owned()));
        }
        encoder::check_heads(self.hidden_size, self.num_attention_heads)?;
        // Refuses what is no plain rotation.
        self.rope_scaling.as_ref().map_or(Ok(0.), |scaling| scaling.theta(0.))?;
        Ok(self)
    }

    fn is_local(&self, layer: usize) -> bool {
        match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|kind| kind == "sliding_attention"),
            None => !layer.is_multiple_of(self.global_attn_every_n_layers.max(1)),
        }
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
    let words = "embeddings.tok_embeddings.weight";
    let prefix = encoder::prefix(graph.weights(), &["", "model."], words)?;
    let dimension = own.hidden_size / own.num_attention_heads;
    let far = own.rope_parameters.full_attention.theta(own.global_rope_theta)?;
    let near = own.rope_parameters.sliding_attention.theta(own.local_rope_theta.unwrap_or(10_000.))?;
    let far = (rope::angles(graph, "far", far, dimension, positions), Value::new());
    distance::check_table(graph, positions)?;
    let bias = window_bias(graph, ids, own.local_attention / 2);
    let near = (rope::angles(graph, "near", near, dimension, positions), bias);
    let mut modern = Modern { own: &own, prefix, graph };
    modern.network(config.vocab_size, ids, &far, &near)
}

/// What is added to scores: nothing up to a distance, and after it what makes a weight zero.
fn window_bias(graph: &mut Graph<'_>, ids: &str, window: i64) -> Value {
    let distance = distance::between(graph, ids);
    let distance = graph.node(ONNX, "Abs", &[&distance], Vec::new());
    let window = distance::constant(graph, "window", window);
    let outside = graph.node(ONNX, "Greater", &[&distance, &window], Vec::new());
    distance::hide(graph, &outside)
}

struct Modern<'g, 'w> {
    own: &'g Own,
    prefix: &'g str,
    graph: &'g mut Graph<'w>,
}

impl Modern<'_, '_> {
    fn network(
        &mut self,
        vocabulary: usize,
        ids: &str,
        far: &(Angles, Value),
        near: &(Angles, Value),
    ) -> Result<Value, ModelError> {
        let words = self.name("embeddings.tok_embeddings.weight");
        let x = self.graph.lookup(&words, &[vocabulary, self.own.hidden_size], ids)?;
        let gamma = self.gamma("embeddings.norm")?;
        let attributes = vec![int("axis", -1), float("epsilon", self.own.norm_eps)];
        // The sum of all that layers gave so far, and the same normalised; what comes first is normalised already.
        let mut sum = self.graph.node(ONNX, "LayerNormalization", &[&x, &gamma], attributes);
        let mut x = sum.clone();
        for layer in 0..self.own.num_hidden_layers {
            let (angles, distance_bias) = if self.own.is_local(layer) { near } else { far };
            let more = self.attention(layer, &x, angles, distance_bias)?;
            (x, sum) = self.add_and_normalise(&format!("layers.{layer}.mlp_norm"), &more, &sum)?;
            let more = self.feed_forward(layer, &x)?;
            let next = match layer + 1 {
                next if next < self.own.num_hidden_layers => format!("layers.{next}.attn_norm"),
                _ => "final_norm".to_owned(),
            };
            (x, sum) = self.add_and_normalise(&next, &more, &sum)?;
        }
        Ok(x)
    }

    fn attention(
        &mut self,
        layer: usize,
        x: &str,
        angles: &Angles,
        distance_bias: &str,
    ) -> Result<Value, ModelError> {
        let (h, heads) = (self.own.hidden_size, self.own.num_attention_heads);
        let packed = self.name(&format!("layers.{layer}.attn.Wqkv.weight"));
        let out = self.name(&format!("layers.{layer}.attn.Wo.weight"));
        let context = encoder::rotary_attention(self.graph, &packed, [h, heads], x, angles, distance_bias)?;
        self.graph.linear(&context, &out, h, h)
    }

    /// One half of the first product, after its activation, decides how much of the other half counts.
    fn feed_forward(&mut self, layer: usize, x: &str) -> Result<Value, ModelError> {
        let (h, m) = (self.own.hidden_size, self.own.intermediate_size);
        let activation = Activation::named(&self.own.hidden_activation)?;
        let both = self.name(&format!("layers.{layer}.mlp.Wi.weight"));
        let out = self.name(&format!("layers.{layer}.mlp.Wo.weight"));
        let [gate, up] = self.graph.linears(x, Part::each(&both, [m, h]))?;
        let gated = encoder::gated(self.graph, &gate, &up, activation);
        self.graph.linear(&gated, &out, m, h)
    }

    fn add_and_normalise(&mut self, norm: &str, more: &str, sum: &str) -> Result<(Value, Value), ModelError> {
        let norm = Norm { gamma: self.gamma(norm)?, beta: Value::new(), epsilon: self.own.norm_eps };
        Ok(self.graph.normalised_sum_and_sum([more, sum], &norm))
    }

    fn gamma(&mut self, norm: &str) -> Result<Value, ModelError> {
        let name = self.name(&format!("{norm}.weight"));
        self.graph.weight(&name, &[self.own.hidden_size])
    }

    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(more: &str) -> Own {
        let text = format!(
            r#"{{"model_type": "modernbert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 6,
                "num_attention_heads": 2, "intermediate_size": 8 {more}}}"#
        );
        Config::parse(&text).and_then(|config| config.read()).expect("a good file")
    }

    #[test]
    fn every_third_layer_looks_far() {
        let local: Vec<_> = (0..6).map(|layer| own("").is_local(layer)).collect();
        assert_eq!(local, [false, true, true, false, true, true]);
        let listed = own(r#", "layer_types": ["sliding_attention", "full_attention"]"#);
        assert!(listed.is_local(0) && !listed.is_local(1));
    }

    #[test]
    fn biases_are_refused() {
        let error = own(r#", "mlp_bias": true"#).checked().err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("biases")));
    }
}
