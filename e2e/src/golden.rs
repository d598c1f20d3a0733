//! Vectors as another implementation computed them.

use std::fs;

use anyhow::Context;
use serde::Deserialize;

use crate::command::repository;

/// What a right vector is at least, as the cosine of the angle to the golden one.
pub const LEAST_COSINE: f64 = 0.99999;

/// One text and its vector.
#[derive(Clone, Debug, Deserialize)]
pub struct Golden {
    /// What is embedded.
    pub text: String,
    /// What must come out, up to its length.
    #[serde(rename = "normalized")]
    pub vector: Vec<f64>,
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Golden>,
}

/// The golden vectors of all-MiniLM-L6-v2.
///
/// # Errors
/// If their file cannot be read.
pub fn all() -> anyhow::Result<Vec<Golden>> {
    let path = repository("inference-pod/tests/golden/all-minilm-l6-v2.json");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    Ok(serde_json::from_str::<Cases>(&text).with_context(|| format!("failed to parse {path}"))?.cases)
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
