//! `POST /v1/embeddings` as it stands in a request's body: read without any I/O.

use serde::Deserialize;

use crate::{
    engine::{Input, Request},
    model::prompts::InputType,
};

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// A list of numbers.
    #[default]
    Float,
    /// 32-bit floats, lower byte first, in base 64.
    Base64,
}

/// Fields that are not here, `model` and `user` among them, are let pass and not used.
#[derive(Deserialize)]
struct Body {
    input: Inputs,
    #[serde(default)]
    encoding_format: Option<Format>,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default)]
    input_type: Option<InputType>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`input` must be a text, a list of texts, a list of token ids, or a list of such lists"
)]
enum Inputs {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse(bytes: &[u8]) -> Result<(Request, Format), String> {
    let body: Body =
        serde_json::from_slice(bytes).map_err(|e| format!("the body is no request for embeddings: {e}"))?;
    let inputs = match body.input {
        Inputs::Text(text) => vec![Input::Text(text)],
        Inputs::Texts(texts) => texts.into_iter().map(Input::Text).collect(),
        Inputs::Tokens(ids) => vec![Input::Tokens(ids)],
        Inputs::Lists(lists) => lists.into_iter().map(Input::Tokens).collect(),
    };
    let request =
        Request { inputs, input_type: body.input_type.unwrap_or_default(), dimensions: body.dimensions };
    Ok((request, body.encoding_format.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inputs(json: &str) -> Vec<Input> {
        parse(json.as_bytes()).expect("a good body").0.inputs
    }

    #[test]
    fn every_form_of_input_is_read() {
        let text = |text: &str| Input::Text(text.into());
        assert_eq!(inputs(r#"{"input": "a"}"#), [text("a")]);
        assert_eq!(inputs(r#"{"input": ["a", "b"]}"#), [text("a"), text("b")]);
        assert_eq!(inputs(r#"{"input": [1, 2]}"#), [Input::Tokens(vec![1, 2])]);
        assert_eq!(inputs(r#"{"input": [[1], [2]]}"#), [Input::Tokens(vec![1]), Input::Tokens(vec![2])]);
        assert_eq!(inputs(r#"{"input": "\u0000"}"#), [text("\0")]);
        assert_eq!(inputs(r#"{"input": []}"#), []);
    }

    #[test]
    fn options_are_read_and_may_be_null() {
        let json = r#"{"input": "a", "encoding_format": "base64", "dimensions": 3, "input_type": "query",
            "model": "m", "user": "u"}"#;
        let (request, format) = parse(json.as_bytes()).expect("a good body");
        assert_eq!((request.dimensions, request.input_type), (Some(3), InputType::Query));
        assert_eq!(format, Format::Base64);
        let json = r#"{"input": "a", "encoding_format": null, "dimensions": null}"#;
        let (request, format) = parse(json.as_bytes()).expect("a good body");
        assert_eq!((request.dimensions, format), (None, Format::Float));
    }

    #[test]
    fn what_is_no_request_is_refused_in_words() {
        for (json, word) in [
            ("{}", "missing field `input`"),
            (r#"{"input": 1}"#, "must be a text"),
            (r#"{"input": null}"#, "must be a text"),
            (r#"{"input": ["a", 1]}"#, "must be a text"),
            (r#"{"input": [-1]}"#, "must be a text"),
            (r#"{"input": [4294967296]}"#, "must be a text"),
            (r#"{"input": "\ud800"}"#, "hex escape"),
            (r#"{"input": "\ud800x\udc00"}"#, "hex escape"),
            (r#"{"input": "a", "encoding_format": "float16"}"#, "unknown variant"),
            (r#"{"input": "a", "dimensions": -1}"#, "invalid value"),
            (r#"{"input": "a""#, "EOF"),
            ("", "EOF"),
        ] {
            let error = parse(json.as_bytes()).expect_err(json);
            assert!(error.contains(word), "{json}: {error}");
        }
        assert!(parse(b"{\"input\": \"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_through(text in any::<String>()) {
            let json = serde_json::json!({"input": text}).to_string();
            prop_assert_eq!(inputs(&json), [Input::Text(text)]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
