//! BERT, and RoBERTa, which is BERT with its first position in another row.

use super::{
    Exported,
    graph::{CONTRIB, Graph, ONNX, Value, float, int},
    proto::{INT32, INT64},
};
use crate::model::{ModelError, recipe::Config, weights::Weights};

/// What stands before the tensors' names, as the model was saved alone or as part of another.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

/// Makes the graph.
pub(super) fn export(config: &Config, weights: &Weights) -> Result<Exported, ModelError> {
    supported(config)?;
    let prefix = PREFIXES
        .into_iter()
        .find(|prefix| weights.has(&format!("{prefix}embeddings.word_embeddings.weight")))
        .ok_or_else(|| ModelError::invalid("model.safetensors", "it has no table of word embeddings"))?;
    let mut bert = Bert { config, weights, prefix, graph: Graph::new(weights) };
    let dims = ["batch", "sequence"];
    let ids = bert.graph.input("input_ids", INT64, &dims);
    let mask = bert.graph.input("attention_mask", INT64, &dims);
    let mask = bert.as_int32(&mask);
    let mut x = bert.embed(&ids)?;
    for layer in 0..config.num_hidden_layers {
        x = bert.layer(layer, x, &mask)?;
    }
    let hidden = config.hidden_size.to_string();
    bert.graph.output("last_hidden_state", x, &["batch", "sequence", &hidden]);
    Ok(bert.graph.finish())
}

fn supported(config: &Config) -> Result<(), ModelError> {
    let unsupported = |what: String| Err(ModelError::Unsupported(what));
    if config.hidden_act != "gelu" {
        return unsupported(format!("its activation is {:?}", config.hidden_act));
    }
    if let Some(kind) = config.position_embedding_type.as_deref().filter(|&kind| kind != "absolute") {
        return unsupported(format!("its positions are {kind:?}"));
    }
    if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
        return Err(ModelError::invalid("config.json", "heads do not divide the hidden size"));
    }
    Ok(())
}

struct Bert<'a> {
    config: &'a Config,
    weights: &'a Weights,
    prefix: &'static str,
    graph: Graph<'a>,
}

impl Bert<'_> {
    /// Word, position and type in one operator. There is one type of token, so its row is added to each position's.
    fn embed(&mut self, ids: &str) -> Result<Value, ModelError> {
        let Config { vocab_size, hidden_size, layer_norm_eps, .. } = *self.config;
        let ids = self.as_int32(ids);
        let word = self.weight("embeddings.word_embeddings.weight", &[vocab_size, hidden_size])?;
        let positions = self.positions()?;
        let gamma = self.weight("embeddings.LayerNorm.weight", &[hidden_size])?;
        let beta = self.weight("embeddings.LayerNorm.bias", &[hidden_size])?;
        let inputs = [&ids, "", &word, &positions, "", &gamma, &beta];
        let epsilon = vec![float("epsilon", layer_norm_eps)];
        Ok(self.graph.node_of(CONTRIB, "EmbedLayerNormalization", &inputs, 2, epsilon))
    }

    fn positions(&mut self) -> Result<Value, ModelError> {
        let hidden = self.config.hidden_size;
        let rows = self
            .config
            .max_position_embeddings
            .ok_or_else(|| ModelError::invalid("config.json", "it has no max_position_embeddings"))?;
        let types = self.config.type_vocab_size.unwrap_or(2);
        let table = self.floats("embeddings.position_embeddings.weight", &[rows, hidden])?;
        let kind = self.floats("embeddings.token_type_embeddings.weight", &[types, hidden])?;
        let first = self.config.position_offset().min(rows);
        let (used, kind) = (&table[first * hidden..], &kind[..hidden]);
        let sum: Vec<f32> =
            used.chunks(hidden).flat_map(|row| row.iter().zip(kind).map(|(a, b)| a + b)).collect();
        Ok(self.graph.constant("positions", &[rows - first, hidden], &sum))
    }

    fn layer(&mut self, layer: usize, x: Value, mask: &str) -> Result<Value, ModelError> {
        let Config { hidden_size: h, intermediate_size: m, .. } = *self.config;
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let context = self.attention(&name("attention.self"), &x, mask)?;
        let (y, bias) = self.dense(&name("attention.output.dense"), &context, h, h)?;
        let y = self.add_and_normalise(&name("attention.output.LayerNorm"), &y, &bias, &x)?;
        let (z, bias) = self.dense(&name("intermediate.dense"), &y, h, m)?;
        let z = self.graph.node(CONTRIB, "BiasGelu", &[&z, &bias], Vec::new());
        let (z, bias) = self.dense(&name("output.dense"), &z, m, h)?;
        self.add_and_normalise(&name("output.LayerNorm"), &z, &bias, &y)
    }

    /// The fused operator wants the three projections side by side: `[hidden, 3 * hidden]`.
    fn attention(&mut self, name: &str, x: &str, mask: &str) -> Result<Value, ModelError> {
        let h = self.config.hidden_size;
        let (mut weight, mut bias) = (vec![0.; 3 * h * h], Vec::with_capacity(3 * h));
        for (part, which) in ["query", "key", "value"].into_iter().enumerate() {
            let own = self.floats(&format!("{name}.{which}.weight"), &[h, h])?;
            transpose_into(&mut weight[part * h..], 3 * h, &own, h);
            bias.extend(self.floats(&format!("{name}.{which}.bias"), &[h])?);
        }
        let weight = self.graph.constant(&format!("{name}.weight"), &[h, 3 * h], &weight);
        let bias = self.graph.constant(&format!("{name}.bias"), &[3 * h], &bias);
        let heads = vec![int("num_heads", self.config.num_attention_heads as i64)];
        Ok(self.graph.node(CONTRIB, "Attention", &[x, &weight, &bias, mask], heads))
    }

    /// `x` times the weights, and the bias, which the next operator adds. Saved are `[to, from]`, wanted are
    /// `[from, to]`.
    fn dense(&mut self, name: &str, x: &str, from: usize, to: usize) -> Result<(Value, Value), ModelError> {
        let own = self.floats(&format!("{name}.weight"), &[to, from])?;
        let mut weight = vec![0.; from * to];
        transpose_into(&mut weight, to, &own, from);
        let weight = self.graph.constant(&format!("{name}.weight"), &[from, to], &weight);
        let bias = self.weight(&format!("{name}.bias"), &[to])?;
        Ok((self.graph.node(ONNX, "MatMul", &[x, &weight], Vec::new()), bias))
    }

    fn add_and_normalise(
        &mut self,
        name: &str,
        x: &str,
        bias: &str,
        skip: &str,
    ) -> Result<Value, ModelError> {
        let hidden = self.config.hidden_size;
        let gamma = self.weight(&format!("{name}.weight"), &[hidden])?;
        let beta = self.weight(&format!("{name}.bias"), &[hidden])?;
        let epsilon = vec![float("epsilon", self.config.layer_norm_eps)];
        Ok(self.graph.node(CONTRIB, "SkipLayerNormalization", &[x, skip, &gamma, &beta, bias], epsilon))
    }

    fn as_int32(&mut self, value: &str) -> Value {
        self.graph.node(ONNX, "Cast", &[value], vec![int("to", INT32.into())])
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, ModelError> {
        self.graph.weight(&format!("{}{name}", self.prefix), shape)
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.weights.floats(&format!("{}{name}", self.prefix), shape)
    }
}

/// Writes the transpose of `from`, whose rows have `columns` numbers, to `into`, whose rows begin every `stride`.
fn transpose_into(into: &mut [f32], stride: usize, from: &[f32], columns: usize) {
    for (r, row) in from.chunks(columns).enumerate() {
        for (c, &x) in row.iter().enumerate() {
            into[c * stride + r] = x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_lands_between_its_neighbours() {
        let mut into = [0.; 8];
        transpose_into(&mut into[1..], 4, &[1., 2., 3., 4.], 2);
        assert_eq!(into, [0., 1., 3., 0., 0., 2., 4., 0.]);
    }
}
