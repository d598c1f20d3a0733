//! Which service the body of a request names.

use std::borrow::Cow;

use serde::Deserialize;

use super::{name::ServiceName, refusal::Refusal};

/// Characters of an unknown model that are told back.
const TOLD: usize = 128;

/// The one field that matters here; all others are skipped without being kept.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
}

/// Reads `"model": "<namespace>/<name>"` from a JSON object.
///
/// # Errors
/// If the body is anything else, without repeating any of its inputs.
pub fn service_of_body(body: &[u8]) -> Result<ServiceName, Refusal> {
    // The message of serde_json would quote from the body.
    let named: Named<'_> = serde_json::from_slice(body)
        .map_err(|error| Refusal::MalformedBody { line: error.line(), column: error.column() })?;
    named.model.parse().map_err(|_| unknown(&named.model))
}

/// The refusal for a model that no service here serves.
pub fn unknown(model: &str) -> Refusal {
    Refusal::UnknownModel { model: model.chars().take(TOLD).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        for body in [
            r#"{"model":"team/minilm","input":"x"}"#,
            r#"{"input":["x",{"model":"no/no"}],"model":"team\/minilm"}"#,
        ] {
            assert_eq!(service_of_body(body.as_bytes()).ok(), ServiceName::new("team", "minilm"), "{body}");
        }
    }

    #[test]
    fn another_body_is_malformed() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"model":7}"#,
            r#"{"model":"a/b""#,
            r#"{"model":"a/b","model":"c/d"}"#,
            "\u{0}",
        ] {
            assert!(
                matches!(service_of_body(body.as_bytes()), Err(Refusal::MalformedBody { .. })),
                "{body:?}"
            );
        }
    }

    #[test]
    fn a_model_of_another_form_is_unknown_and_cut() {
        assert_eq!(
            service_of_body(br#"{"model":"text-embedding-3-small"}"#),
            Err(Refusal::UnknownModel { model: "text-embedding-3-small".to_owned() })
        );
        let Refusal::UnknownModel { model } = unknown(&"é".repeat(1000)) else { panic!("another refusal") };
        assert_eq!(model.chars().count(), TOLD);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in any::<Vec<u8>>()) {
            let _ = service_of_body(&body);
        }
    }
}
