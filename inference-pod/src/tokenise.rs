//! Texts to token ids.

use tokenizers::{Tokenizer, TruncationParams};

use crate::model::{ModelError, files::TOKENIZER};

/// A model's tokenizer, cutting at the model's limit and padding nothing.
pub struct Tokeniser {
    tokenizer: Tokenizer,
    lower_case: bool,
}

impl Tokeniser {
    /// Reads `tokenizer.json`. What that file says about cutting and padding is put aside: it is often left over
    /// from training.
    ///
    /// # Errors
    /// If it is damaged, or the limit leaves no room beside the special tokens.
    pub fn new(json: &[u8], max_tokens: usize, lower_case: bool) -> Result<Self, ModelError> {
        let invalid = |e: tokenizers::Error| ModelError::invalid(TOKENIZER, e);
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(invalid)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(invalid)?;
        let special = tokenizer.encode_fast("", true).map_err(invalid)?.len();
        if max_tokens <= special {
            return Err(ModelError::Unsupported(format!(
                "{max_tokens} tokens leave no room beside its {special} special ones"
            )));
        }
        let cut = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(cut)).map_err(invalid)?;
        Ok(Self { tokenizer, lower_case })
    }

    /// The ids of a text, special tokens included, cut at the limit. Takes time in proportion to the text: not for
    /// async threads.
    ///
    /// # Errors
    /// If the tokenizer cannot take this text; the message holds none of it.
    pub fn ids(&self, prompt: &str, text: &str) -> Result<Vec<u32>, TokeniseError> {
        let joined;
        let mut text = text;
        if !prompt.is_empty() {
            joined = format!("{prompt}{text}");
            text = &joined;
        }
        let lowered;
        if self.lower_case {
            lowered = text.to_lowercase();
            text = &lowered;
        }
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|_| TokeniseError)?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// A text that the tokenizer cannot take.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the tokenizer of this model cannot take this text")]
pub struct TokeniseError;

#[cfg(test)]
mod tests {
    use super::*;

    /// Words and two special tokens, with what training left behind.
    const JSON: &str = r#"{"version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]",
            "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "b": 5}}}"#;

    fn ids(max_tokens: usize, lower_case: bool, prompt: &str, text: &str) -> Vec<u32> {
        let tokeniser = Tokeniser::new(JSON.as_bytes(), max_tokens, lower_case).expect("a good file");
        tokeniser.ids(prompt, text).expect("a good text")
    }

    #[test]
    fn the_models_limit_cuts_and_nothing_pads() {
        assert_eq!(ids(5, false, "", "a b a b"), [1, 4, 5, 4, 2]);
        assert_eq!(ids(5, false, "", "a"), [1, 4, 2]);
        assert_eq!(ids(5, false, "", ""), [1, 2]);
    }

    #[test]
    fn prompts_stand_in_front_and_case_is_lowered_if_asked() {
        assert_eq!(ids(9, false, "b ", "a"), [1, 5, 4, 2]);
        assert_eq!(ids(9, true, "B ", "A"), [1, 5, 4, 2]);
        assert_eq!(ids(9, false, "", "A"), [1, 3, 2]);
    }

    #[test]
    fn a_limit_without_room_is_refused() {
        for max_tokens in 0..3 {
            assert!(Tokeniser::new(JSON.as_bytes(), max_tokens, false).is_err());
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        for json in ["", "{}", &JSON[..200]] {
            assert!(Tokeniser::new(json.as_bytes(), 9, false).is_err());
        }
    }
}
