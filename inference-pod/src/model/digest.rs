//! The fingerprint of a vector space.

use ring::digest::{SHA256, digest as hash};
use serde::Serialize;

use super::Recipe;
use crate::pooling::Pooling;

/// Everything that two pods must have alike for their vectors to be comparable. Hashes are of whole files, in
/// hexadecimal.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Parts<'a> {
    /// Of the weights or the shipped graph; see [`joined`].
    pub network: &'a str,
    /// Of `tokenizer.json`.
    pub tokenizer: &'a str,
    /// Of `config.json`, which says how the weights are used.
    pub config: &'a str,
    /// As in [`Recipe::pooling`].
    pub pooling: Pooling,
    /// As in [`Recipe::dense`]. A space without such layers has the digest that it had before there were any.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub dense: &'a [super::dense::Dense],
    /// As in [`Recipe::normalize`].
    pub normalize: bool,
    /// As in [`Recipe::max_tokens`].
    pub max_tokens: usize,
    /// As in [`Recipe::lower_case`].
    pub lower_case: bool,
    /// As in [`Recipe::prompts`].
    pub prompts: &'a super::prompts::Prompts,
    /// As in [`Recipe::precision`].
    pub precision: &'a str,
}

impl<'a> Parts<'a> {
    /// The parts of a model.
    pub fn new(recipe: &'a Recipe, network: &'a str, tokenizer: &'a str, config: &'a str) -> Self {
        Self {
            network,
            tokenizer,
            config,
            pooling: recipe.pooling,
            dense: &recipe.dense,
            normalize: recipe.normalize,
            max_tokens: recipe.max_tokens,
            lower_case: recipe.lower_case,
            prompts: &recipe.prompts,
            precision: recipe.precision.name(),
        }
    }
}

/// `sha256:` and 64 hexadecimal digits over the parts.
pub fn digest(parts: &Parts<'_>) -> String {
    // A version stands in front, so that a space which is one day defined by more has another digest for sure.
    let text =
        serde_json::to_string(&("kembed space 1", parts)).expect("plain strings and numbers serialise");
    format!("sha256:{}", sha256(text.as_bytes()))
}

/// The hash of a network that is in several files: that of their hashes, in order. That of one file is its own.
pub fn joined(hashes: &[String]) -> String {
    match hashes {
        [one] => one.clone(),
        several => sha256(several.join("\n").as_bytes()),
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(hash(&SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Whether a text is so many digits as [`hex`] writes them.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{dense::Dense, prompts::Prompts};

    fn parts(prompts: &Prompts) -> Parts<'_> {
        Parts {
            network: "aa",
            tokenizer: "bb",
            config: "cc",
            pooling: Pooling::Mean,
            dense: &[],
            normalize: true,
            max_tokens: 256,
            lower_case: false,
            prompts,
            precision: "float32",
        }
    }

    #[test]
    fn each_part_changes_the_digest() {
        let (none, some) = (Prompts::default(), Prompts { query: "query: ".into(), ..Prompts::default() });
        let dense = Dense::parse("2_Dense", r#"{"in_features": 2, "out_features": 2}"#).expect("good");
        let parts = parts(&none);
        let all = [
            parts,
            Parts { network: "ab", ..parts },
            Parts { tokenizer: "ab", ..parts },
            Parts { config: "ab", ..parts },
            Parts { pooling: Pooling::Cls, ..parts },
            Parts { dense: &[dense], ..parts },
            Parts { normalize: false, ..parts },
            Parts { max_tokens: 255, ..parts },
            Parts { lower_case: true, ..parts },
            Parts { prompts: &some, ..parts },
            Parts { precision: "int8", ..parts },
        ];
        let digests: BTreeSet<_> = all.iter().map(digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn each_file_of_a_network_changes_its_hash() {
        let hash = |hashes: &[&str]| joined(&hashes.iter().map(|&hash| hash.to_owned()).collect::<Vec<_>>());
        assert_eq!(hash(&["aa"]), "aa");
        let different: BTreeSet<_> =
            [&["aa", "bb"][..], &["bb", "aa"], &["aa", "bc"], &["aa"]].map(hash).into();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn the_digest_never_moves() {
        // Recorded spaces outlive releases: if this fails, every user's index is called into question.
        let prompts = Prompts::default();
        assert_eq!(
            digest(&parts(&prompts)),
            "sha256:bf07878fff8b0fa7368cb7ffba267ac4dee68399b913007ec2543d1f7d483f7c"
        );
    }
}
