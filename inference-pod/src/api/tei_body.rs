//! The bodies of text-embeddings-inference's routes: read without any I/O.

use serde::{Deserialize, de::DeserializeOwned};

use super::options::{Inputs, Object, Truncation};
use crate::engine::{Input, Request};

/// `POST /embed`
#[derive(Deserialize)]
pub(super) struct Embed {
    inputs: Inputs,
    #[serde(flatten)]
    options: Options,
    normalize: Option<bool>,
    dimensions: Option<usize>,
}

/// `POST /embed_all`
#[derive(Deserialize)]
pub(super) struct EmbedAll {
    inputs: Inputs,
    #[serde(flatten)]
    options: Options,
}

/// `POST /similarity`
#[derive(Deserialize)]
pub(super) struct Similarity {
    inputs: Object<Compared>,
    parameters: Option<Object<Options>>,
}

#[derive(Deserialize)]
struct Compared {
    source_sentence: String,
    sentences: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(flatten)]
    truncation: Truncation,
    prompt_name: Option<String>,
}

/// `POST /tokenize`
#[derive(Deserialize)]
pub(super) struct Tokenize {
    pub(super) inputs: Texts,
    pub(super) add_special_tokens: Option<bool>,
    pub(super) prompt_name: Option<String>,
}

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`inputs` must be a text or a list of texts")]
pub(super) enum Texts {
    One(String),
    Many(Vec<String>),
}

/// `POST /decode`
#[derive(Deserialize)]
pub(super) struct Decode {
    pub(super) ids: Lists,
    pub(super) skip_special_tokens: Option<bool>,
}

/// One list of token ids or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`ids` must be a list of token ids or a list of such lists")]
pub(super) enum Lists {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let read: Result<Object<T>, _> = serde_json::from_slice(bytes);
    read.map(|object| object.0).map_err(|e| format!("the body is no request for this path: {e}"))
}

impl Options {
    fn apply(self, request: Request) -> Request {
        Request { cut: self.truncation.cut(), prompt_name: self.prompt_name, ..request }
    }
}

impl From<Embed> for Request {
    fn from(embed: Embed) -> Self {
        let Embed { inputs, options, normalize, dimensions } = embed;
        // Its clients get vectors of length one unless they say otherwise, whatever the model has.
        let normalize = Some(normalize.unwrap_or(true));
        options.apply(Self { inputs: inputs.into(), dimensions, normalize, ..Self::default() })
    }
}

impl From<EmbedAll> for Request {
    fn from(embed: EmbedAll) -> Self {
        embed.options.apply(Self { inputs: embed.inputs.into(), ..Self::default() })
    }
}

impl Similarity {
    /// The request whose first vector is to be compared with the others. `None` if there are no others.
    pub(super) fn request(self) -> Option<Request> {
        let Compared { source_sentence, sentences } = self.inputs.0;
        if sentences.is_empty() {
            return None;
        }
        let inputs = std::iter::once(source_sentence).chain(sentences).map(Input::Text).collect();
        let request = Request { inputs, normalize: Some(true), ..Request::default() };
        let options = self.parameters.map_or_else(Options::default, |object| object.0);
        Some(options.apply(request))
    }
}

impl From<Texts> for Vec<String> {
    fn from(texts: Texts) -> Self {
        match texts {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

impl From<Lists> for Vec<Vec<u32>> {
    fn from(lists: Lists) -> Self {
        match lists {
            // An empty list could be either, and is no text either way.
            Lists::One(ids) if ids.is_empty() => Vec::new(),
            Lists::One(ids) => vec![ids],
            Lists::Many(lists) => lists,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenise::Cut;

    fn embed(json: &str) -> Request {
        parse::<Embed>(json.as_bytes()).expect("a good body").into()
    }

    #[test]
    fn a_request_to_embed_is_read() {
        let request = embed(r#"{"inputs": ["a", [1, 2]], "other": 1}"#);
        assert_eq!(request.inputs, [Input::Text("a".into()), Input::Tokens(vec![1, 2])]);
        assert_eq!((request.cut, request.normalize, request.dimensions), (Cut::End, Some(true), None));
        let request = embed(
            r#"{"inputs": "a", "truncate": true, "truncation_direction": "Left", "prompt_name": "p",
                "normalize": false, "dimensions": 2}"#,
        );
        assert_eq!((request.cut, request.normalize, request.dimensions), (Cut::Start, Some(false), Some(2)));
        assert_eq!(request.prompt_name.as_deref(), Some("p"));
        let request = embed(r#"{"inputs": "a", "truncate": null, "prompt_name": null, "normalize": null}"#);
        assert_eq!((request.cut, request.normalize), (Cut::End, Some(true)));
    }

    #[test]
    fn sentences_to_compare_are_read() {
        let json = r#"{"inputs": {"source_sentence": "a", "sentences": ["b", "c"]},
            "parameters": {"truncate": false}}"#;
        let request = parse::<Similarity>(json.as_bytes()).expect("a good body").request().expect("some");
        assert_eq!(request.inputs.len(), 3);
        assert_eq!(request.cut, Cut::Refuse);
        let json = r#"{"inputs": {"source_sentence": "a", "sentences": []}, "parameters": null}"#;
        assert!(parse::<Similarity>(json.as_bytes()).expect("a good body").request().is_none());
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        for (json, word) in [
            ("{}", "missing field `inputs`"),
            (r#"{"inputs": 1}"#, "must be a text"),
            (r#"{"inputs": "a", "truncation_direction": "up"}"#, "unknown variant"),
            (r#"{"inputs": "\ud800"}"#, "hex escape"),
            (r#"["a", null, null]"#, "expected an object"),
        ] {
            let error = parse::<Embed>(json.as_bytes()).err().expect(json);
            assert!(error.contains(word), "{json}: {error}");
        }
        let json = r#"{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": [null, null]}"#;
        assert!(parse::<Similarity>(json.as_bytes()).is_err());
    }
}
