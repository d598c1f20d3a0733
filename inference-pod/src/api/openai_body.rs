//! `POST /v1/embeddings` as it stands in a request's body: read without any I/O.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::options::{Inputs, Object, cut};
use crate::engine::Request;

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

/// Each field is read by itself, so that a refusal can name it. Fields that are not here, `model` and `user` among
/// them, are let pass and not used.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    encoding_format: Option<&'a RawValue>,
    dimensions: Option<&'a RawValue>,
    input_type: Option<&'a RawValue>,
    prompt_name: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    truncation_direction: Option<&'a RawValue>,
    normalize: Option<&'a RawValue>,
}

/// What is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct BodyError {
    /// In words.
    pub(super) message: String,
    /// The field, if it is one.
    pub(super) field: Option<&'static str>,
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<(Request, Format), BodyError> {
    let Object(body): Object<Body> = serde_json::from_slice(bytes).map_err(|e| BodyError {
        message: format!("the body is no request for embeddings: {e}"),
        field: None,
    })?;
    let inputs: Option<Inputs> = read("input", body.input)?;
    let inputs = inputs
        .ok_or_else(|| BodyError { message: "the body has no `input`".into(), field: Some("input") })?;
    let request = Request {
        inputs: inputs.into(),
        input_type: read("input_type", body.input_type)?.unwrap_or_default(),
        prompt_name: read("prompt_name", body.prompt_name)?,
        cut: cut(read("truncate", body.truncate)?, read("truncation_direction", body.truncation_direction)?),
        dimensions: read("dimensions", body.dimensions)?,
        normalize: read("normalize", body.normalize)?,
    };
    Ok((request, read("encoding_format", body.encoding_format)?.unwrap_or_default()))
}

/// One field, which may be missing or null.
fn read<T: DeserializeOwned>(field: &'static str, json: Option<&RawValue>) -> Result<Option<T>, BodyError> {
    let value = json.map(|json| serde_json::from_str(json.get())).transpose();
    value.map_err(|e| BodyError { message: format!("`{field}`: {e}"), field: Some(field) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{engine::Input, model::prompts::InputType, tokenise::Cut};

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
        assert_eq!(inputs(r#"{"input": ["a", [1]]}"#), [text("a"), Input::Tokens(vec![1])]);
        assert_eq!(inputs(r#"{"input": []}"#), []);
    }

    #[test]
    fn options_are_read_and_may_be_null() {
        let json = r#"{"input": "a", "encoding_format": "base64", "dimensions": 3, "input_type": "query",
            "model": "m", "user": "u", "prompt_name": "p", "truncate": false, "normalize": true}"#;
        let (request, format) = parse(json.as_bytes()).expect("a good body");
        assert_eq!((request.dimensions, request.input_type), (Some(3), InputType::Query));
        assert_eq!(format, Format::Base64);
        assert_eq!((request.prompt_name.as_deref(), request.cut), (Some("p"), Cut::Refuse));
        assert_eq!(request.normalize, Some(true));
        let json = r#"{"input": "a", "encoding_format": null, "dimensions": null}"#;
        let (request, format) = parse(json.as_bytes()).expect("a good body");
        assert_eq!((request.dimensions, format), (None, Format::Float));
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_field_named() {
        for (json, field, word) in [
            ("{}", Some("input"), "no `input`"),
            (r#"{"input": 1}"#, Some("input"), "must be a text"),
            (r#"{"input": null}"#, Some("input"), "no `input`"),
            (r#"{"input": ["a", 1]}"#, Some("input"), "must be a text"),
            (r#"{"input": [-1]}"#, Some("input"), "must be a text"),
            (r#"{"input": [4294967296]}"#, Some("input"), "must be a text"),
            (r#"{"input": "\ud800"}"#, Some("input"), "hex escape"),
            (r#"{"input": "\ud800x\udc00"}"#, Some("input"), "hex escape"),
            (r#"{"input": "a", "encoding_format": "float16"}"#, Some("encoding_format"), "unknown variant"),
            (r#"{"input": "a", "dimensions": -1}"#, Some("dimensions"), "invalid value"),
            (r#"{"input": "a", "input_type": "other"}"#, Some("input_type"), "unknown variant"),
            (r#"{"input": "a", "truncate": "none"}"#, Some("truncate"), "NONE"),
            (r#"{"input": "a", "normalize": 1}"#, Some("normalize"), "boolean"),
            (r#"{"input": "a""#, None, "EOF"),
            ("[]", None, "expected an object"),
            (r#"["a", null, null, null, null, null, null, null]"#, None, "expected an object"),
            ("", None, "EOF"),
        ] {
            let error = parse(json.as_bytes()).expect_err(json);
            assert!(error.message.contains(word), "{json}: {error}");
            assert_eq!(error.field, field, "{json}: {error}");
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
