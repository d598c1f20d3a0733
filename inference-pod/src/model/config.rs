//! `config.json`: what every architecture says in it. The rest is read by each architecture's own exporter.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};

use super::{ModelError, files::CONFIG};

/// `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture's name.
    pub model_type: String,
    /// Tokens in the vocabulary: ids are smaller.
    pub vocab_size: usize,
    /// The token that fills short rows.
    pub pad_token_id: Option<u32>,
    /// What stands behind the network, if it was saved to classify texts.
    pub classifier: Option<String>,
    /// Positions that the network was made for, those that no token is ever at included.
    positions: Option<usize>,
    whole: serde_json::Value,
}

/// As it is written.
#[derive(Deserialize)]
struct Written {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    pad_token_id: Option<u32>,
    max_position_embeddings: Option<usize>,
    /// The same in NomicBERT.
    n_positions: Option<usize>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// If it is damaged or lacks what every text encoder has.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let invalid = |e| ModelError::invalid(CONFIG, e);
        let whole: serde_json::Value = serde_json::from_str(text).map_err(invalid)?;
        let written = Written::deserialize(&whole).map_err(invalid)?;
        let model_type =
            written.model_type.ok_or_else(|| ModelError::invalid(CONFIG, "it names no model_type"))?;
        let vocab_size = written.vocab_size.ok_or_else(|| {
            ModelError::Unsupported(format!("{CONFIG} of model type {model_type:?} has no vocab_size"))
        })?;
        let mut classes = written.architectures.into_iter().flatten();
        Ok(Self {
            model_type,
            classifier: classes.find(|class| class.ends_with("ForSequenceClassification")),
            vocab_size,
            pad_token_id: written.pad_token_id,
            positions: written.max_position_embeddings.or(written.n_positions),
            whole,
        })
    }

    /// The file as one architecture reads it.
    ///
    /// # Errors
    /// If it is not like that architecture's.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        T::deserialize(&self.whole).map_err(|e| {
            ModelError::invalid(
                CONFIG,
                format!("it is not like those of model type {:?}: {e}", self.model_type),
            )
        })
    }

    /// The names of the numbers that a model that classifies gives, in order.
    ///
    /// # Errors
    /// If some have no name.
    pub fn labels(&self) -> Result<Vec<String>, ModelError> {
        #[derive(Deserialize)]
        struct Own {
            id2label: Option<BTreeMap<usize, String>>,
        }
        // Who names none has two, in transformers.
        let Some(labels) = self.read::<Own>()?.id2label else {
            return Ok(vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()]);
        };
        if labels.is_empty() || !labels.keys().copied().eq(0..labels.len()) {
            return Err(ModelError::invalid(CONFIG, "id2label does not name each label"));
        }
        Ok(labels.into_values().collect())
    }

    /// Tokens that there are positions for.
    pub fn position_limit(&self) -> Option<usize> {
        Some(self.positions?.saturating_sub(self.position_offset()))
    }

    /// The row of the first token's position. RoBERTa and its kin leave the rows up to and including that of the
    /// padding token unused.
    pub fn position_offset(&self) -> usize {
        match self.model_type.as_str() {
            "roberta" | "xlm-roberta" | "camembert" => self.pad_token_id.unwrap_or(1) as usize + 1,
            // Whatever its configuration says, its padding is token 1.
            "mpnet" => 2,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Option<usize> {
        Config::parse(text).expect("a good file").position_limit()
    }

    #[test]
    fn rows_before_the_first_position_do_not_count() {
        let text =
            r#"{"model_type": "TYPE", "vocab_size": 9, "max_position_embeddings": 514, "pad_token_id": 1}"#;
        for (name, tokens) in [("bert", 514), ("roberta", 512), ("mpnet", 512), ("modernbert", 514)] {
            assert_eq!(limit(&text.replace("TYPE", name)), Some(tokens), "{name}");
        }
        assert_eq!(
            limit(r#"{"model_type": "nomic_bert", "vocab_size": 9, "n_positions": 8192}"#),
            Some(8192)
        );
    }

    #[test]
    fn labels_stand_in_order_and_all_have_names() {
        let labels = |more: &str| {
            let text = format!(r#"{{"model_type": "bert", "vocab_size": 9 {more}}}"#);
            Config::parse(&text).and_then(|config| config.labels()).map_err(|e| e.to_string())
        };
        assert_eq!(labels(""), Ok(vec!["LABEL_0".into(), "LABEL_1".into()]));
        let eleven = (0..11).rev().map(|i| format!(r#""{i}": "l{i}""#)).collect::<Vec<_>>().join(",");
        let read = labels(&format!(r#", "id2label": {{{eleven}}}"#)).expect("good labels");
        assert_eq!((read.len(), read[2].as_str(), read[10].as_str()), (11, "l2", "l10"));
        for wrong in ["{}", r#"{"1": "a"}"#, r#"{"0": "a", "2": "b"}"#, r#"{"0": 1}"#] {
            assert!(labels(&format!(r#", "id2label": {wrong}"#)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_architecture_lacks_is_named() {
        #[derive(Debug, Deserialize)]
        struct Own {
            #[allow(dead_code, reason = "it is missing")]
            layers: usize,
        }
        let config = Config::parse(r#"{"model_type": "bert", "vocab_size": 9}"#).expect("a good file");
        let error = config.read::<Own>().expect_err("no layers").to_string();
        assert!(error.contains("bert") && error.contains("layers"), "{error}");
    }
}
