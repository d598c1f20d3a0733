//! How this model turns texts into vectors: read from its files, changed by what the service asks for.

use serde::Deserialize;

use super::{
    ModelError, Precision,
    config::Config,
    dense::{self, Dense},
    files::{SENTENCE_BERT, TOKENIZER_CONFIG},
    modules::{self, Module},
    prompts::{self, Prompts},
};
use crate::pooling::Pooling;

/// Everything but the weights and the tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// `config.json`.
    pub config: Config,
    /// From one vector a token to one vector.
    pub pooling: Pooling,
    /// What is done to that vector, in order.
    pub dense: Vec<Dense>,
    /// Whether vectors are brought to length one.
    pub normalize: bool,
    /// Tokens of an input that count, special ones included.
    pub max_tokens: usize,
    /// Whether texts are lowered before they are tokenised.
    pub lower_case: bool,
    /// What stands in front of inputs.
    pub prompts: Prompts,
    /// The names of its numbers, if the model classifies texts instead of giving vectors of them.
    pub labels: Option<Vec<String>>,
    /// What the network is computed in.
    pub precision: Precision,
}

/// The text of each file, as found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Texts<'a> {
    /// `config.json`
    pub config: &'a str,
    /// `modules.json`
    pub modules: Option<&'a str>,
    /// Names and texts of the configurations of those steps that have one.
    pub steps: &'a [(String, String)],
    /// `sentence_bert_config.json`
    pub sentence_bert: Option<&'a str>,
    /// `config_sentence_transformers.json`
    pub sentence_transformers: Option<&'a str>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a str>,
}

/// What the service asks for instead of what the model says.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Pooling.
    pub pooling: Option<Pooling>,
    /// Whether vectors are brought to length one.
    pub normalize: Option<bool>,
    /// Tokens that count.
    pub max_tokens: Option<usize>,
    /// Prompt of queries.
    pub query_prompt: Option<String>,
    /// Prompt of documents.
    pub document_prompt: Option<String>,
    /// What the network is computed in.
    pub precision: Precision,
}

#[derive(Default, Deserialize)]
struct SentenceBert {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    /// Written as a float of 30 digits where there is no limit.
    model_max_length: Option<f64>,
}

impl Recipe {
    /// Reads the files.
    ///
    /// # Errors
    /// If one is damaged, they contradict each other, or they ask for what this program cannot do.
    pub fn read(texts: Texts<'_>, overrides: &Overrides) -> Result<Self, ModelError> {
        let config = Config::parse(texts.config)?;
        let steps = texts.modules.map(modules::parse).transpose()?;
        // What sentence-transformers lists the steps of gives vectors, whatever it was trained as before.
        let class = config.classifier.as_ref().filter(|_| steps.is_none());
        if let Some(class) = class.filter(|_| overrides.pooling.is_some() || overrides.normalize.is_some()) {
            return Err(ModelError::Unsupported(format!(
                "it classifies texts and has no vectors to pool or to normalise ({class})"
            )));
        }
        let labels = class.map(|_| config.labels()).transpose()?;
        let sentence_bert: SentenceBert = parse_or_default(SENTENCE_BERT, texts.sentence_bert)?;
        let tokenizer: TokenizerConfig = parse_or_default(TOKENIZER_CONFIG, texts.tokenizer_config)?;
        let prompts = texts.sentence_transformers.map(prompts::parse).transpose()?.unwrap_or_default();
        Ok(Self {
            pooling: pooling(steps.as_deref(), texts.steps, overrides)?,
            dense: dense(steps.as_deref(), texts.steps)?,
            normalize: overrides
                .normalize
                .unwrap_or_else(|| steps.is_some_and(|steps| steps.contains(&Module::Normalize))),
            max_tokens: max_tokens(&config, &sentence_bert, &tokenizer, overrides)?,
            lower_case: sentence_bert.do_lower_case,
            prompts: prompts
                .overridden(overrides.query_prompt.as_deref(), overrides.document_prompt.as_deref()),
            labels,
            precision: overrides.precision,
            config,
        })
    }
}

fn parse_or_default<T: Default + for<'a> Deserialize<'a>>(
    file: &str,
    text: Option<&str>,
) -> Result<T, ModelError> {
    let Some(text) = text else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|e| ModelError::invalid(file, e))
}

/// A model that does not say how it pools is pooled by the mean, as sentence-transformers does.
fn pooling(
    steps: Option<&[Module]>,
    configs: &[(String, String)],
    overrides: &Overrides,
) -> Result<Pooling, ModelError> {
    if let Some(pooling) = overrides.pooling {
        return Ok(pooling);
    }
    let step = steps.into_iter().flatten().find(|step| matches!(step, Module::Pooling(_)));
    let Some(file) = step.and_then(Module::config_file) else { return Ok(Pooling::Mean) };
    modules::parse_pooling(&file, text_of(&file, configs)?)
}

/// The dense layers, in order.
fn dense(steps: Option<&[Module]>, configs: &[(String, String)]) -> Result<Vec<Dense>, ModelError> {
    let mut layers = Vec::new();
    for step in steps.into_iter().flatten() {
        if let (Module::Dense(folder), Some(file)) = (step, step.config_file()) {
            layers.push(Dense::parse(folder, text_of(&file, configs)?)?);
        }
    }
    dense::check(&layers)?;
    Ok(layers)
}

fn text_of<'a>(file: &str, configs: &'a [(String, String)]) -> Result<&'a str, ModelError> {
    let found = configs.iter().find(|(name, _)| name == file);
    let lost = || ModelError::invalid(file, "it is named in modules.json and does not exist");
    found.map(|(_, text)| text.as_str()).ok_or_else(lost)
}

fn max_tokens(
    config: &Config,
    sentence_bert: &SentenceBert,
    tokenizer: &TokenizerConfig,
    overrides: &Overrides,
) -> Result<usize, ModelError> {
    let limit = config.position_limit().unwrap_or(usize::MAX);
    if let Some(asked) = overrides.max_tokens {
        if asked > limit {
            return Err(ModelError::Unsupported(format!(
                "{asked} tokens were asked for, and its table of positions ends at {limit}"
            )));
        }
        return Ok(asked);
    }
    // `as` saturates, so that a limit of 30 digits is none.
    let tokenizer = tokenizer.model_max_length.map_or(usize::MAX, |tokens| tokens as usize);
    let own = sentence_bert.max_seq_length.unwrap_or(tokenizer).min(limit);
    if own == usize::MAX {
        return Err(ModelError::Unsupported("none of its files limits the length: give --max-tokens".into()));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6,
        "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522,
        "max_position_embeddings": 512, "pad_token_id": 0}"#;
    const MODULES: &str = r#"[{"path": "", "type": "a.Transformer"},
        {"path": "1_Pooling", "type": "a.Pooling"}, {"path": "2_Normalize", "type": "a.Normalize"}]"#;
    const CLS: &str = r#"{"pooling_mode_cls_token": true}"#;

    fn texts() -> Texts<'static> {
        static STEPS: LazyLock<[(String, String); 1]> =
            LazyLock::new(|| [("1_Pooling/config.json".to_owned(), CLS.to_owned())]);
        Texts {
            config: CONFIG,
            modules: Some(MODULES),
            steps: &*STEPS,
            sentence_bert: Some(r#"{"max_seq_length": 256, "do_lower_case": false}"#),
            tokenizer_config: Some(r#"{"model_max_length": 512}"#),
            sentence_transformers: None,
        }
    }

    fn read(texts: Texts<'_>, overrides: &Overrides) -> Result<Recipe, String> {
        Recipe::read(texts, overrides).map_err(|e| e.to_string())
    }

    #[test]
    fn the_models_own_words_count() {
        let recipe = read(texts(), &Overrides::default()).expect("good files");
        assert_eq!((recipe.pooling, recipe.normalize, recipe.max_tokens), (Pooling::Cls, true, 256));
    }

    #[test]
    fn the_service_may_say_otherwise() {
        let overrides = Overrides {
            pooling: Some(Pooling::Mean),
            normalize: Some(false),
            max_tokens: Some(512),
            ..Overrides::default()
        };
        let recipe = read(texts(), &overrides).expect("good files");
        assert_eq!((recipe.pooling, recipe.normalize, recipe.max_tokens), (Pooling::Mean, false, 512));
    }

    #[test]
    fn a_bare_transformer_is_pooled_by_the_mean_and_not_normalised() {
        let bare = Texts { config: CONFIG, ..Texts::default() };
        let recipe = read(bare, &Overrides::default()).expect("good files");
        assert_eq!((recipe.pooling, recipe.normalize, recipe.max_tokens), (Pooling::Mean, false, 512));
    }

    #[test]
    fn a_tokenizer_without_a_limit_has_none() {
        let text = r#"{"model_max_length": 1000000000000000019884624838656}"#;
        let bare = Texts { config: CONFIG, tokenizer_config: Some(text), ..Texts::default() };
        assert_eq!(read(bare, &Overrides::default()).map(|recipe| recipe.max_tokens), Ok(512));
    }

    #[test]
    fn a_classifier_has_labels_unless_its_steps_say_otherwise() {
        let config = CONFIG.replace('{', r#"{"architectures": ["BertForSequenceClassification"], "#);
        let labels = |texts: Texts<'_>| read(texts, &Overrides::default()).map(|recipe| recipe.labels);
        let classifier = Texts { config: &config, ..Texts::default() };
        assert_eq!(labels(classifier), Ok(Some(vec!["LABEL_0".into(), "LABEL_1".into()])));
        assert_eq!(labels(Texts { config: &config, ..texts() }), Ok(None));
        assert_eq!(labels(texts()), Ok(None));
        let pooled = Overrides { pooling: Some(Pooling::Mean), ..Overrides::default() };
        assert!(read(classifier, &pooled).is_err_and(|e| e.contains("BertFor") && e.contains("pool")));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let more = Overrides { max_tokens: Some(513), ..Overrides::default() };
        assert!(read(texts(), &more).is_err_and(|e| e.contains("ends at 512")));
        let lost = Texts { steps: &[], ..texts() };
        assert!(read(lost, &Overrides::default()).is_err_and(|e| e.contains("does not exist")));
        let none = Texts { config: "{}", ..Texts::default() };
        assert!(read(none, &Overrides::default()).is_err_and(|e| e.contains("names no model_type")));
        let other = Texts { config: r#"{"model_type": "t5"}"#, ..Texts::default() };
        assert!(read(other, &Overrides::default()).is_err_and(|e| e.contains("t5")));
    }
}
