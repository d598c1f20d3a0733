//! Networks of real shapes, whose weights are made here: how fast they are does not depend on what they were taught.

use std::{collections::HashMap, fs, io, path::Path};

use safetensors::{Dtype, tensor::TensorView};

/// A BERT.
#[derive(Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    /// Numbers between the two products behind attention.
    pub inner: usize,
    pub vocabulary: usize,
    pub positions: usize,
}

/// As their authors published them: google-bert/bert-base-uncased, sentence-transformers/all-MiniLM-L6-v2.
pub const SHAPES: [Shape; 2] = [
    Shape {
        name: "bert-base",
        hidden: 768,
        layers: 12,
        heads: 12,
        inner: 3072,
        vocabulary: 30_522,
        positions: 512,
    },
    Shape {
        name: "MiniLM",
        hidden: 384,
        layers: 6,
        heads: 12,
        inner: 1536,
        vocabulary: 30_522,
        positions: 512,
    },
];

impl Shape {
    /// Floating-point operations that one token of a row takes, in a row of so many, a product's multiplication and addition
    /// counted as two.
    ///
    /// Each layer has four products of `hidden` by `hidden` (queries, keys, values, and what attention gives) and two of
    /// `hidden` by `inner`; and attention compares each token with each of its row, and sums as many values:
    /// `layers * (2 * (4 hidden^2 + 2 hidden inner) + 4 length hidden)`. Looking up embeddings, norms, activations and pooling
    /// are left out, as in "model FLOPs" of Chowdhery et al., PaLM, 2022, appendix B. For bert-base that is 170 million a
    /// token and, at 512 tokens, 189 million.
    pub fn flops_of_token(&self, length: usize) -> f64 {
        let Self { hidden, layers, inner, .. } = *self;
        (layers * (2 * (4 * hidden * hidden + 2 * hidden * inner) + 4 * length * hidden)) as f64
    }

    /// The products of a layer for so many tokens: how often, and `[rows, columns, numbers between]`.
    pub fn products(&self, tokens: usize) -> [(usize, [usize; 3]); 3] {
        let Self { hidden, inner, .. } = *self;
        [(4, [tokens, hidden, hidden]), (1, [tokens, inner, hidden]), (1, [tokens, hidden, inner])]
    }

    /// Its `config.json`.
    pub fn config(&self) -> String {
        let Self { hidden, layers, heads, inner, vocabulary, positions, .. } = self;
        format!(
            r#"{{"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": {hidden},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "intermediate_size": {inner},
            "vocab_size": {vocabulary}, "max_position_embeddings": {positions}, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "pad_token_id": 0}}"#
        )
    }

    /// The names and sizes of its tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Self { hidden, inner, .. } = *self;
        let norm =
            |name: &str| ["weight", "bias"].map(|part| (format!("{name}.LayerNorm.{part}"), vec![hidden]));
        let dense = |name: String, to: usize, from: usize| {
            [(format!("{name}.weight"), vec![to, from]), (format!("{name}.bias"), vec![to])]
        };
        let table = |name: &str, rows| (format!("embeddings.{name}_embeddings.weight"), vec![rows, hidden]);
        let mut all =
            vec![table("word", self.vocabulary), table("position", self.positions), table("token_type", 2)];
        all.extend(norm("embeddings"));
        for layer in (0..self.layers).map(|i| format!("encoder.layer.{i}")) {
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                all.extend(dense(format!("{layer}.attention.{part}"), hidden, hidden));
            }
            all.extend(dense(format!("{layer}.intermediate.dense"), inner, hidden));
            all.extend(dense(format!("{layer}.output.dense"), hidden, inner));
            all.extend(norm(&format!("{layer}.attention.output")));
            all.extend(norm(&format!("{layer}.output")));
        }
        all
    }

    /// Writes such a model into a folder, with a tokenizer that makes one token of each of these words.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path, words: &[&str]) -> io::Result<()> {
        fs::write(folder.join("config.json"), self.config())?;
        fs::write(folder.join("tokenizer.json"), self.tokenizer(words))?;
        // What transformers asks for beside it.
        fs::write(
            folder.join("tokenizer_config.json"),
            r#"{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}"#,
        )?;
        let mut seed = 1;
        let tensors: Vec<_> = self
            .tensors()
            .into_iter()
            .map(|(name, shape)| (numbers(&mut seed, &name, &shape), name, shape))
            .collect();
        let views: HashMap<&str, TensorView<'_>> = tensors
            .iter()
            .map(|(bytes, name, shape)| {
                (
                    name.as_str(),
                    TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as numbers"),
                )
            })
            .collect();
        safetensors::serialize_to_file(&views, None, &folder.join("model.safetensors"))
            .map_err(io::Error::other)
    }

    /// As BERT's own, but for the words; the vocabulary is as long as the network's.
    fn tokenizer(&self, words: &[&str]) -> String {
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().chain(words.iter().copied());
        let mut vocabulary: Vec<_> = special.map(str::to_owned).collect();
        vocabulary.extend((vocabulary.len()..self.vocabulary).map(|i| format!("##{i}")));
        let vocabulary: HashMap<_, _> =
            vocabulary.into_iter().enumerate().map(|(i, word)| (word, i)).collect();
        let normalizer = r#"{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}"#;
        format!(
            r###"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {normalizer},
            "pre_tokenizer": {{"type": "BertPreTokenizer"}}, "decoder": null,
            "post_processor": {{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}},
            "model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {}}}}}"###,
            serde_json::to_string(&vocabulary).expect("text and numbers")
        )
    }
}

/// As untaught networks begin: norms at one and zero, all else small and random.
fn numbers(seed: &mut u64, name: &str, shape: &[usize]) -> Vec<u8> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.07
    };
    let number = |_| match name {
        name if name.ends_with("LayerNorm.weight") => 1f32,
        name if name.ends_with("bias") => 0.,
        _ => next(),
    };
    (0..shape.iter().product::<usize>()).map(number).flat_map(f32::to_le_bytes).collect()
}
