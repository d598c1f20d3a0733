//! Vectors and scores as another implementation computed them.

use std::fs;

use anyhow::Context;
use serde::{Deserialize, de::DeserializeOwned};

use crate::command::repository;

/// What a right vector is at least, as the cosine of the angle to the golden one.
pub const LEAST_COSINE: f64 = 0.99999;

/// One text and its vector.
#[derive(Clone, Debug, Deserialize)]
pub struct Golden {
    /// What is embedded.
    pub text: String,
    /// Its tokens.
    #[serde(rename = "input_ids")]
    pub tokens: Vec<u32>,
    /// The mean of the vectors of these.
    #[serde(rename = "mean_pooled")]
    pub mean: Vec<f64>,
    /// What must come out, up to its length.
    #[serde(rename = "normalized")]
    pub vector: Vec<f64>,
}

/// One text, and its vectors by the graphs of the small model that is shipped as such.
#[derive(Clone, Debug, Deserialize)]
pub struct Shipped {
    /// What is embedded.
    pub text: String,
    /// By the graph in 32-bit floats.
    pub vector: Vec<f64>,
    /// By the one in eight bits.
    pub quantized: Vec<f64>,
}

/// One text or two, and what the small classifier gives them.
#[derive(Clone, Debug, Deserialize)]
pub struct Classified {
    /// The text.
    pub text: String,
    /// The second one, if there is.
    pub pair: Option<String>,
    /// A number for each label, as the model has it.
    #[serde(rename = "vector")]
    pub scores: Vec<f64>,
}

/// A question, a text, and what the small reranker gives them.
#[derive(Clone, Debug, Deserialize)]
pub struct Pair {
    /// The question.
    #[serde(rename = "text")]
    pub query: String,
    /// The text.
    #[serde(rename = "pair")]
    pub text: String,
    /// The number of the one label, as the model has it.
    #[serde(rename = "vector")]
    pub score: [f64; 1],
}

#[derive(Deserialize)]
struct Cases<T> {
    cases: Vec<T>,
}

/// The golden vectors of all-MiniLM-L6-v2.
///
/// # Errors
/// If their file cannot be read.
pub fn all() -> anyhow::Result<Vec<Golden>> {
    cases("all-minilm-l6-v2.json")
}

/// The golden scores of the [`RERANKER`](crate::service::RERANKER), but for that without a question.
///
/// # Errors
/// If their file cannot be read.
pub fn pairs() -> anyhow::Result<Vec<Pair>> {
    let all: Vec<serde_json::Value> = cases("xlm-roberta-classifier/golden.json")?;
    // The file has texts alone too, and a pod refuses what is empty.
    let pairs = all.into_iter().filter(|case| case["pair"].is_string() && case["text"] != "");
    pairs.map(|case| serde_json::from_value(case).context("not a pair")).collect()
}

/// The golden scores of the [`CLASSIFIER`](crate::service::CLASSIFIER), but for what is empty.
///
/// # Errors
/// If their file cannot be read.
pub fn classified() -> anyhow::Result<Vec<Classified>> {
    let all: Vec<Classified> = cases("bert-classifier/golden.json")?;
    Ok(all.into_iter().filter(|case| !case.text.is_empty()).collect())
}

/// The golden vectors of the model that is [`SHIPPED`](crate::service::SHIPPED) as graphs, but for what is empty.
///
/// # Errors
/// If their file cannot be read.
pub fn shipped() -> anyhow::Result<Vec<Shipped>> {
    let all: Vec<Shipped> = cases("shipped/golden.json")?;
    Ok(all.into_iter().filter(|case| !case.text.is_empty()).collect())
}

fn cases<T: DeserializeOwned>(file: &str) -> anyhow::Result<Vec<T>> {
    let path = repository(&format!("inference-pod/tests/golden/{file}"));
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    Ok(serde_json::from_str::<Cases<T>>(&text).with_context(|| format!("failed to parse {path}"))?.cases)
}

/// The cosine of the angle between two vectors of the same length; NaN for a vector of zeros.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors have different dimensions");
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// Fails unless `vector` is this text's.
#[track_caller]
pub fn assert_right(golden: &Golden, vector: &[f64]) {
    let cosine = cosine(&golden.vector, vector);
    assert!(cosine >= LEAST_COSINE, "the vector of {:?} is off: cosine {cosine}", golden.text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines() {
        assert_eq!(cosine(&[1.0, 0.0], &[2.0, 0.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), 0.0);
        assert!(cosine(&[0.0, 0.0], &[1.0, 0.0]).is_nan());
    }
}
