//! The bodies of the routes to models that classify: read without any I/O.

use serde::Deserialize;

use super::options::Truncation;
use crate::engine::{Classify, Sequence, Texts};

/// `POST /rerank`
#[derive(Deserialize)]
pub(super) struct Rerank {
    query: String,
    texts: Vec<String>,
    return_text: Option<bool>,
    #[serde(flatten)]
    options: Options,
}

/// `POST /predict`
#[derive(Deserialize)]
pub(super) struct Predict {
    inputs: Inputs,
    #[serde(flatten)]
    options: Options,
}

#[derive(Deserialize)]
struct Options {
    #[serde(flatten)]
    truncation: Truncation,
    raw_scores: Option<bool>,
}

/// One input or several: a list of texts alone is one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`inputs` must be a text, a list of one or two texts, or a list of such lists")]
enum Inputs {
    Text(String),
    Texts(Vec<String>),
    Several(Vec<Vec<String>>),
}

impl Options {
    fn of(self, texts: Texts) -> Classify {
        Classify { texts, cut: self.truncation.cut() }
    }
}

impl Rerank {
    /// What is ranked.
    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Whether the answer has the texts.
    pub(super) fn return_text(&self) -> bool {
        self.return_text.unwrap_or(false)
    }

    /// Whether numbers are told as the network gives them.
    pub(super) fn raw_scores(&self) -> bool {
        self.options.raw_scores.unwrap_or(false)
    }
}

impl From<Rerank> for Classify {
    fn from(rerank: Rerank) -> Self {
        let Rerank { query, texts, options, .. } = rerank;
        options.of(Texts::Against { query, texts })
    }
}

impl Predict {
    /// As [`Rerank::raw_scores`].
    pub(super) fn raw_scores(&self) -> bool {
        self.options.raw_scores.unwrap_or(false)
    }

    /// Whether the answer is that of one input, and no list of such.
    pub(super) fn is_one(&self) -> bool {
        !matches!(self.inputs, Inputs::Several(_))
    }

    /// What is asked.
    ///
    /// # Errors
    /// If an input is of more than two texts, in words.
    pub(super) fn request(self) -> Result<Classify, &'static str> {
        let sequences = match self.inputs {
            Inputs::Text(text) => vec![Sequence::One(text)],
            // It is no input at all.
            Inputs::Texts(texts) if texts.is_empty() => Vec::new(),
            Inputs::Texts(texts) => vec![sequence(texts)?],
            Inputs::Several(several) => several.into_iter().map(sequence).collect::<Result<_, _>>()?,
        };
        Ok(self.options.of(Texts::Each(sequences)))
    }
}

fn sequence(mut texts: Vec<String>) -> Result<Sequence, &'static str> {
    match (texts.pop(), texts.pop(), texts.is_empty()) {
        (Some(only), None, _) => Ok(Sequence::One(only)),
        (Some(second), Some(first), true) => Ok(Sequence::Pair(first, second)),
        _ => {
            Err("an input is a text, or a list of one or two texts; several inputs are a list of such lists")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::tei_body::parse, tokenise::Cut};

    fn sequences(inputs: &str) -> Result<(bool, Vec<Sequence>), String> {
        let predict = parse::<Predict>(format!(r#"{{"inputs": {inputs}}}"#).as_bytes())?;
        let one = predict.is_one();
        match predict.request()?.texts {
            Texts::Each(sequences) => Ok((one, sequences)),
            Texts::Against { .. } => unreachable!("that is for a query"),
        }
    }

    #[test]
    fn inputs_are_texts_pairs_or_lists_of_both() {
        let (a, b) = (|| "a".to_owned(), || "b".to_owned());
        for (inputs, expected) in [
            (r#""a""#, (true, vec![Sequence::One(a())])),
            (r#"["a"]"#, (true, vec![Sequence::One(a())])),
            (r#"["a", "b"]"#, (true, vec![Sequence::Pair(a(), b())])),
            (r#"[["a"]]"#, (false, vec![Sequence::One(a())])),
            (r#"[["a", "b"], ["b"]]"#, (false, vec![Sequence::Pair(a(), b()), Sequence::One(b())])),
            ("[]", (true, Vec::new())),
        ] {
            assert_eq!(sequences(inputs), Ok(expected), "{inputs}");
        }
        for inputs in [r#"["a", "a", "b"]"#, r#"[["a", "a", "b"]]"#, "[[]]", r#"[["a"], "b"]"#, "1", "null"] {
            assert!(sequences(inputs).is_err(), "{inputs}");
        }
    }

    #[test]
    fn options_are_off_unless_said() {
        let read = |json: &str| parse::<Rerank>(json.as_bytes()).expect("a good body");
        let rerank = read(r#"{"query": "a", "texts": ["b"], "raw_scores": null, "other": 1}"#);
        assert!(!rerank.raw_scores() && !rerank.return_text());
        assert_eq!(Classify::from(rerank).cut, Cut::End);
        let rerank = read(
            r#"{"query": "a", "texts": ["b"], "raw_scores": true, "return_text": true, "truncate": true,
                "truncation_direction": "left"}"#,
        );
        assert!(rerank.raw_scores() && rerank.return_text());
        assert_eq!(Classify::from(rerank).cut, Cut::Start);
        assert!(parse::<Rerank>(br#"{"query": "a"}"#).is_err_and(|e| e.contains("texts")));
    }
}
