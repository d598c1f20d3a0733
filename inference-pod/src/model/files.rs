//! Which files of a model are needed: decided from what the source has, before anything large is fetched.

use serde::{Deserialize, Serialize};

use super::{ModelError, Precision};

/// The architecture and its sizes.
pub const CONFIG: &str = "config.json";
/// The tokenizer, whole.
pub const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer's length limit, among other things.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The steps from text to vector, as sentence-transformers lists them.
pub const MODULES: &str = "modules.json";
/// The model's length limit.
pub const SENTENCE_BERT: &str = "sentence_bert_config.json";
/// The prompts.
pub const SENTENCE_TRANSFORMERS: &str = "config_sentence_transformers.json";
/// The weights in one file.
pub const SAFETENSORS: &str = "model.safetensors";
/// Which files the weights are in, if they are split.
pub const INDEX: &str = "model.safetensors.index.json";
/// Where a repository keeps its exported graph.
pub const ONNX: &str = "onnx/model.onnx";

/// What can hold a network or tell why there is none, in order of preference.
const NETWORKS: [&str; 5] = [SAFETENSORS, INDEX, ONNX, "model.onnx", PYTORCH];

/// Weights as a program that would have to be run.
const PYTORCH: &str = "pytorch_model.bin";

/// What holds the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Weights, or the index of the files that they are split over; the graph is made from them.
    Safetensors(String),
    /// A graph with its weights, as shipped.
    Onnx(String),
}

impl Network {
    /// The file's name, relative to the model.
    pub fn file(&self) -> &str {
        match self {
            Self::Safetensors(file) | Self::Onnx(file) => file,
        }
    }

    /// Refuses to compute a network in numbers that it was not made for.
    ///
    /// # Errors
    /// If it is a shipped graph, which says itself what it is computed in, and other numbers are asked for.
    pub fn check(&self, precision: Precision) -> Result<(), ModelError> {
        match (self, precision) {
            (Self::Safetensors(_), _) | (Self::Onnx(_), Precision::Float32) => Ok(()),
            (Self::Onnx(file), Precision::Float16) => unsupported(&format!(
                "{file} is a graph, which is computed as it was made, and not in float16"
            )),
            (Self::Onnx(file), Precision::Int8) => unsupported(&format!(
                "{file} is a graph, which is computed as it was made; int8 is made from model.safetensors, and a \
                 graph that was shipped in int8 is named with --file alone"
            )),
        }
    }
}

/// Files of which the first that the source has is that of the network: the one asked for, else weights, else a shipped
/// graph.
///
/// # Errors
/// If the one asked for is no file of a model, wherever that is.
pub fn candidates(asked: Option<&str>) -> Result<Vec<&str>, ModelError> {
    match asked {
        None => Ok(NETWORKS.to_vec()),
        Some(file) if is_plain(file) => Ok(vec![file]),
        Some(file) => unsupported(&format!("{file:?} is no path inside a model")),
    }
}

/// The network in the first of the [`candidates`] that the source has.
///
/// # Errors
/// If it has none, or that one cannot be served.
pub fn network(asked: Option<&str>, found: Option<&str>) -> Result<Network, ModelError> {
    match (found, asked) {
        (Some(file), _) if file.ends_with(".safetensors") || is_index(file) => {
            Ok(Network::Safetensors(file.to_owned()))
        }
        (Some(file), _) if file.ends_with(".onnx") => Ok(Network::Onnx(file.to_owned())),
        (Some(PYTORCH), None) => {
            unsupported("it has only pytorch_model.bin; convert it to model.safetensors")
        }
        (Some(file), _) => unsupported(&format!("{file} is neither .safetensors nor .onnx")),
        (None, Some(asked)) => Err(ModelError::NoSuchFile(asked.to_owned())),
        (None, None) => unsupported("it has neither model.safetensors nor onnx/model.onnx"),
    }
}

fn unsupported<T>(what: &str) -> Result<T, ModelError> {
    Err(ModelError::Unsupported(what.to_owned()))
}

/// Whether a file lists those that weights are split over.
pub fn is_index(file: &str) -> bool {
    file.ends_with(".safetensors.index.json")
}

/// Whether `name` is a path that stays inside the folder it is joined to.
pub fn is_plain(name: &str) -> bool {
    !name.contains('\\') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use kembed_queue::wire::FailureReason;

    use super::*;

    fn choose(asked: Option<&str>, files: &[&str]) -> Result<Network, String> {
        let found = candidates(asked).map(|names| names.into_iter().find(|name| files.contains(name)));
        found.and_then(|found| network(asked, found)).map_err(|e| e.to_string())
    }

    #[test]
    fn weights_come_before_a_shipped_graph() {
        let both = ["model.safetensors", "onnx/model.onnx"];
        assert_eq!(choose(None, &both), Ok(Network::Safetensors("model.safetensors".into())));
        assert_eq!(choose(None, &both[1..]), Ok(Network::Onnx("onnx/model.onnx".into())));
        assert_eq!(choose(None, &[INDEX, "onnx/model.onnx"]), Ok(Network::Safetensors(INDEX.into())));
        assert_eq!(choose(Some(INDEX), &[INDEX]), Ok(Network::Safetensors(INDEX.into())));
        assert_eq!(choose(Some("onnx/model.onnx"), &both), Ok(Network::Onnx("onnx/model.onnx".into())));
    }

    #[test]
    fn a_file_that_is_not_there_was_not_found() {
        let error = network(Some("onnx/none.onnx"), None).expect_err("there is none");
        assert_eq!(error.reason(), FailureReason::ModelNotFound);
        assert_eq!(error.to_string(), "the model has no file onnx/none.onnx");
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        for (asked, files, word) in [
            (None, &["pytorch_model.bin"][..], "convert"),
            (None, &[], "neither"),
            (Some("a.gguf"), &["a.gguf"], "neither .safetensors nor .onnx"),
            (Some("b.onnx"), &[], "no file b.onnx"),
            (Some("../../etc/passwd.onnx"), &[], "no path inside"),
        ] {
            let error = choose(asked, files).expect_err("nothing to serve");
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_shipped_graph_is_computed_as_it_was_made() {
        let (graph, weights) = (Network::Onnx("a.onnx".into()), Network::Safetensors(SAFETENSORS.into()));
        assert!(graph.check(Precision::Float32).is_ok() && weights.check(Precision::Int8).is_ok());
        assert!(graph.check(Precision::Int8).is_err_and(|e| e.to_string().contains("a.onnx")));
    }

    #[test]
    fn only_paths_inside_are_plain() {
        assert!(is_plain("1_Pooling/config.json"));
        for name in ["", "/etc/passwd", "a//b", "../a", "a/..", "a\\b", "./a"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}
