//! The small models of tests/golden, as large as models are: their weights are zeros.

use std::{collections::HashMap, fs};

use inference_pod::model::{Overrides, Precision, Recipe, weights::Weights};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Map, Value};

use super::support;

/// A folder with such a model.
pub struct Folder {
    pub name: &'static str,
    /// Numbers in a token's vector.
    pub hidden: usize,
    folder: tempfile::TempDir,
}

impl Folder {
    /// With so many numbers in a token's vector, and between the products behind attention; so many heads and positions.
    pub fn new(name: &'static str, [hidden, inner, heads, positions]: [usize; 4]) -> Self {
        let from = support::model(name);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = fs::read_to_string(from.join("config.json")).expect("there is one");
        let mut config: Map<String, Value> = serde_json::from_str(&text).expect("a good file");
        for (key, value) in &mut config {
            match key.as_str() {
                "hidden_size" | "dim" | "n_embd" => *value = hidden.into(),
                "intermediate_size" | "hidden_dim" | "n_inner" => *value = inner.into(),
                "num_attention_heads" | "n_heads" | "n_head" => *value = heads.into(),
                "max_position_embeddings" | "n_positions" => *value = positions.into(),
                "local_attention" => *value = 128.into(),
                // A head is twice as wide as its part of a vector, and two of them share a key.
                "head_dim" => *value = (2 * hidden / heads).into(),
                "num_key_value_heads" => *value = (heads / 2).into(),
                _ => (),
            }
        }
        let config = serde_json::to_string(&config).expect("it was read");
        fs::write(folder.path().join("config.json"), config).expect("it can be written");
        let bytes = fs::read(from.join("model.safetensors")).expect("it can be read");
        let tensors = SafeTensors::deserialize(&bytes).expect("good weights");
        // As make.py has made them.
        let size = |name: &str, size: usize| match size {
            size if name.contains("relative_attention_bias") => {
                if size == 4 {
                    heads
                } else {
                    size
                }
            }
            16 if name.contains("self_attn") => 2 * hidden / heads,
            32 => hidden,
            48 => inner,
            96 if name.contains("Wi") => 2 * inner,
            96 => 3 * hidden,
            64 if name.contains("self_attn") => 2 * hidden,
            40 | 42 | 60 | 142 => positions,
            other => other,
        };
        let shapes = tensors.iter().map(|(name, view)| {
            let shape: Vec<_> = view.shape().iter().map(|&n| size(name, n)).collect();
            let bytes = view.dtype().bitsize() / 8 * shape.iter().product::<usize>();
            (name.to_owned(), view.dtype(), vec![0; bytes], shape)
        });
        let made: Vec<_> = shapes.collect();
        let views: HashMap<_, _> = made
            .iter()
            .map(|(name, kind, zeros, shape)| {
                (name, TensorView::new(*kind, shape.clone(), zeros).expect("as many as it says"))
            })
            .collect();
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(&views, None, &path).expect("it can be written");
        Self { name, hidden, folder }
    }

    pub fn weights(&self) -> Weights {
        Weights::open(&[self.folder.path().join("model.safetensors")]).expect("good weights")
    }

    /// What a pod reads of it, for inputs of up to so many tokens.
    pub fn recipe(&self, max_tokens: usize, precision: Precision) -> Recipe {
        let config = fs::read_to_string(self.folder.path().join("config.json")).expect("it was written");
        let overrides = Overrides { max_tokens: Some(max_tokens), ..Overrides::default() };
        Recipe { precision, ..support::recipe(&support::model(self.name), &config, &overrides) }
    }
}
