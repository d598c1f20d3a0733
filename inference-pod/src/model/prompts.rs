//! Texts that a model wants in front of its inputs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ModelError, files::SENTENCE_TRANSFORMERS};

/// What stands in front of an input. Empty where the model wants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Prompts {
    /// Before something that is searched with.
    pub query: String,
    /// Before something that is searched for.
    pub document: String,
    /// Before an input of which the client does not say what it is.
    pub default: String,
    /// All that the model's authors named, for clients that name one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, String>,
}

/// What an input is, as a client says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// Something that is searched with.
    Query,
    /// Something that is searched for.
    #[serde(alias = "passage")]
    Document,
    /// The client does not say.
    #[default]
    #[serde(skip)]
    Unsaid,
}

impl Prompts {
    /// The prompt for such an input.
    pub fn before(&self, input: InputType) -> &str {
        match input {
            InputType::Query => &self.query,
            InputType::Document => &self.document,
            InputType::Unsaid => &self.default,
        }
    }

    /// The prompt of this name. `query` and `document` are there for every model, if only as nothing.
    pub fn of_name(&self, name: &str) -> Option<&str> {
        match name {
            "query" => Some(&self.query),
            "document" => Some(&self.document),
            other => self.named.get(other).map(String::as_str),
        }
    }

    /// Every name that [`Prompts::of_name`] knows, in one line.
    pub fn names(&self) -> String {
        let named =
            self.named.keys().map(String::as_str).filter(|name| !["query", "document"].contains(name));
        ["query", "document"].into_iter().chain(named).collect::<Vec<_>>().join(", ")
    }

    /// These prompts, with what the operator of the service says in their place.
    pub fn overridden(mut self, query: Option<&str>, document: Option<&str>) -> Self {
        if let Some(query) = query {
            self.query = query.to_owned();
        }
        if let Some(document) = document {
            self.document = document.to_owned();
        }
        self
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    #[serde(default)]
    default_prompt_name: Option<String>,
}

/// Reads `config_sentence_transformers.json`.
///
/// # Errors
/// If it is damaged, or its default prompt is not among its prompts.
pub fn parse(text: &str) -> Result<Prompts, ModelError> {
    let config: Config =
        serde_json::from_str(text).map_err(|e| ModelError::invalid(SENTENCE_TRANSFORMERS, e))?;
    let named = |names: &[&str]| names.iter().find_map(|name| config.prompts.get(*name)).cloned();
    let default = match &config.default_prompt_name {
        None => String::new(),
        Some(name) => config.prompts.get(name).cloned().ok_or_else(|| {
            ModelError::invalid(SENTENCE_TRANSFORMERS, format!("there is no default prompt {name:?}"))
        })?,
    };
    Ok(Prompts {
        query: named(&["query"]).unwrap_or_default(),
        document: named(&["document", "passage"]).unwrap_or_default(),
        default,
        named: config.prompts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_read_and_overridden() {
        let text = r#"{"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": "query"}"#;
        let prompts = parse(text).expect("a good file");
        assert_eq!(prompts.before(InputType::Query), "q: ");
        assert_eq!(prompts.before(InputType::Document), "p: ");
        assert_eq!(prompts.before(InputType::Unsaid), "q: ");
        let prompts = prompts.overridden(Some("Q "), None);
        assert_eq!((prompts.query.as_str(), prompts.document.as_str()), ("Q ", "p: "));
        assert_eq!(prompts.of_name("query"), Some("Q "));
        assert_eq!((prompts.of_name("passage"), prompts.of_name("other")), (Some("p: "), None));
        assert_eq!(prompts.names(), "query, document, passage");
    }

    #[test]
    fn no_prompts_are_no_error() {
        assert_eq!(
            parse(r#"{"__version__": {}, "default_prompt_name": null}"#).ok(),
            Some(Prompts::default())
        );
    }

    #[test]
    fn a_default_that_is_not_there_is_an_error() {
        assert!(parse(r#"{"prompts": {}, "default_prompt_name": "query"}"#).is_err());
    }
}
