//! `modules.json`: the steps from text to vector, as sentence-transformers lists them.

use serde::Deserialize;

use super::{
    ModelError,
    files::{MODULES, is_plain},
};
use crate::pooling::Pooling;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// Text to one vector a token.
    Transformer,
    /// One vector a token to one vector; its configuration is in this folder.
    Pooling(String),
    /// A vector to another; its files are in this folder.
    Dense(String),
    /// A vector to length one.
    Normalize,
}

impl Module {
    /// The file that configures this step, if it has one that matters.
    pub fn config_file(&self) -> Option<String> {
        match self {
            Self::Pooling(folder) | Self::Dense(folder) => Some(format!("{folder}/config.json")),
            Self::Transformer | Self::Normalize => None,
        }
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    class: String,
    path: String,
}

/// Reads `modules.json`.
///
/// # Errors
/// If it is damaged, or lists a step that this program cannot do.
pub fn parse(text: &str) -> Result<Vec<Module>, ModelError> {
    let listed: Vec<Listed> = serde_json::from_str(text).map_err(|e| ModelError::invalid(MODULES, e))?;
    listed.into_iter().map(module).collect()
}

fn module(listed: Listed) -> Result<Module, ModelError> {
    match listed.class.rsplit('.').next() {
        Some("Transformer") if listed.path.is_empty() => Ok(Module::Transformer),
        Some("Transformer") => Err(ModelError::Unsupported(format!(
            "its files lie in the folder {:?} instead of beside {MODULES}",
            listed.path
        ))),
        Some("Pooling") if is_plain(&listed.path) => Ok(Module::Pooling(listed.path)),
        Some("Dense") if is_plain(&listed.path) => Ok(Module::Dense(listed.path)),
        Some("Pooling" | "Dense") => {
            Err(ModelError::invalid(MODULES, format!("{:?} is no folder", listed.path)))
        }
        Some("Normalize") => Ok(Module::Normalize),
        _ => Err(ModelError::Unsupported(format!("it has a step of type {}", listed.class))),
    }
}

/// The parts of a pooling module's `config.json` that matter.
#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default = "yes")]
    include_prompt: bool,
}

fn yes() -> bool {
    true
}

/// Reads the configuration of a pooling step.
///
/// # Errors
/// If it is damaged, or pools in a way that this program cannot.
pub fn parse_pooling(file: &str, text: &str) -> Result<Pooling, ModelError> {
    let config: PoolingConfig = serde_json::from_str(text).map_err(|e| ModelError::invalid(file, e))?;
    if !config.include_prompt {
        return Err(ModelError::Unsupported("its pooling leaves the prompt out".to_owned()));
    }
    let modes = [
        (config.pooling_mode_cls_token, Pooling::Cls, "first token"),
        (config.pooling_mode_mean_tokens, Pooling::Mean, "mean"),
        (config.pooling_mode_lasttoken, Pooling::LastToken, "last token"),
        (config.pooling_mode_max_tokens, Pooling::Max, "maximum"),
        (config.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLen, "mean over the root of the length"),
        (config.pooling_mode_weightedmean_tokens, Pooling::WeightedMean, "weighted mean"),
    ];
    let on: Vec<_> = modes.iter().filter(|mode| mode.0).collect();
    match on.as_slice() {
        [(_, pooling, _)] => Ok(*pooling),
        [] => Err(ModelError::invalid(file, "no pooling mode is on")),
        several => {
            let names: Vec<_> = several.iter().map(|mode| mode.2).collect();
            Err(ModelError::Unsupported(format!("its pooling joins {}", names.join(" and "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_three_steps_are_read() {
        let text = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
        let modules = parse(text).expect("a good file");
        assert_eq!(modules, [Module::Transformer, Module::Pooling("1_Pooling".into()), Module::Normalize]);
        assert_eq!(modules[1].config_file().as_deref(), Some("1_Pooling/config.json"));
    }

    #[test]
    fn an_unknown_step_is_refused_by_name() {
        let error = parse(r#"[{"path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}]"#);
        let error = error.expect_err("not supported");
        assert!(error.to_string().contains("models.LSTM"), "{error}");
    }

    #[test]
    fn a_folder_cannot_lead_out_of_the_model() {
        let error = parse(r#"[{"path": "../../etc", "type": "x.Pooling"}]"#).expect_err("a bad folder");
        assert!(matches!(error, ModelError::Invalid { .. }), "{error}");
    }

    #[test]
    fn pooling_modes_are_read_or_refused() {
        let pooling = |text| parse_pooling("1_Pooling/config.json", text).map_err(|e| e.to_string());
        assert_eq!(pooling(r#"{"pooling_mode_mean_tokens": true}"#), Ok(Pooling::Mean));
        assert_eq!(pooling(r#"{"pooling_mode_cls_token": true}"#), Ok(Pooling::Cls));
        assert_eq!(pooling(r#"{"pooling_mode_lasttoken": true}"#), Ok(Pooling::LastToken));
        assert_eq!(pooling(r#"{"pooling_mode_weightedmean_tokens": true}"#), Ok(Pooling::WeightedMean));
        for (text, word) in [
            (r#"{"pooling_mode_max_tokens": true, "pooling_mode_cls_token": true}"#, "joins"),
            (r#"{"pooling_mode_cls_token": true, "include_prompt": false}"#, "prompt"),
            ("{}", "no pooling mode"),
            ("[", "EOF"),
        ] {
            let error = pooling(text).expect_err("nothing to pool by");
            assert!(error.contains(word), "{error}");
        }
    }
}
