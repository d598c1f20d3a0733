//! Texts to token ids, and back.

mod pairs;

use std::{borrow::Cow, sync::OnceLock};

use tokenizers::{Tokenizer, TruncationDirection, TruncationParams};

pub use self::pairs::{Pairs, Typed};
use crate::model::{ModelError, files::TOKENIZER};

/// A model's tokenizer, cutting at the model's limit and padding nothing.
pub struct Tokeniser {
    tokenizer: Tokenizer,
    /// The same one that does not cut, made when it is first needed: few clients do, and it takes memory.
    uncut: OnceLock<Tokenizer>,
    lower_case: bool,
    max_tokens: usize,
    /// Special tokens around every text.
    special: usize,
}

/// What becomes of a text with more tokens than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Its end goes.
    #[default]
    End,
    /// Its beginning goes.
    Start,
    /// It is refused.
    Refuse,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What the network is given.
    pub id: u32,
    /// As the vocabulary has it.
    pub text: String,
    /// The bytes of the text that it stands for; `None` for a token that the model wants around a text.
    pub bytes: Option<(usize, usize)>,
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
        Ok(Self { tokenizer, uncut: OnceLock::new(), lower_case, max_tokens, special })
    }

    /// The ids of a text, special tokens included, cut at the limit. Takes time in proportion to the text: not for
    /// async threads.
    ///
    /// # Errors
    /// If the tokenizer cannot take this text; the message holds none of it.
    pub fn ids(&self, prompt: &str, text: &str) -> Result<Vec<u32>, TokeniseError> {
        self.ids_cut(prompt, text, Cut::End)
    }

    /// The same, with a choice of what is cut.
    ///
    /// # Errors
    /// As [`Tokeniser::ids`], or if the text is too long and may not be cut.
    pub fn ids_cut(&self, prompt: &str, text: &str, cut: Cut) -> Result<Vec<u32>, TokeniseError> {
        let text = self.prepared(prompt, text);
        let encode = |special| self.tokenizer.encode_fast(&*text, special).map_err(|_| TokeniseError::Text);
        let ids = encode(true)?.get_ids().to_vec();
        // At the limit there may have been more: without special tokens that shows, for then there is room for it.
        if cut == Cut::End
            || ids.len() < self.max_tokens
            || encode(false)?.len() + self.special <= self.max_tokens
        {
            return Ok(ids);
        }
        if cut == Cut::Refuse {
            return Err(TokeniseError::TooLong { limit: self.max_tokens });
        }
        let uncut = self.uncut();
        let mut encoding = uncut.encode_fast(&*text, false).map_err(|_| TokeniseError::Text)?;
        encoding.truncate(self.max_tokens - self.special, 0, TruncationDirection::Left);
        let encoding = uncut.post_process(encoding, None, true).map_err(|_| TokeniseError::Text)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a text, all of them, with special ones around if `special`. Bytes count from the beginning of
    /// the prompt.
    ///
    /// # Errors
    /// As [`Tokeniser::ids`].
    pub fn tokens(&self, prompt: &str, text: &str, special: bool) -> Result<Vec<Token>, TokeniseError> {
        let text = self.prepared(prompt, text);
        let encoding = self.uncut().encode(&*text, special).map_err(|_| TokeniseError::Text)?;
        let pieces = encoding.get_ids().iter().zip(encoding.get_tokens()).zip(encoding.get_offsets());
        let tokens =
            pieces.zip(encoding.get_special_tokens_mask()).map(|(((&id, token), &bytes), &special)| {
                let of_text = text.get(bytes.0..bytes.1).filter(|_| special == 0);
                Token {
                    id,
                    text: of_text.unwrap_or(token).to_owned(),
                    bytes: (special == 0).then_some(bytes),
                }
            });
        Ok(tokens.collect())
    }

    /// The text of token ids, without special ones if `skip_special`. Ids that the tokenizer does not know are nothing.
    ///
    /// # Errors
    /// If the tokenizer cannot read them.
    pub fn text(&self, ids: &[u32], skip_special: bool) -> Result<String, TokeniseError> {
        self.tokenizer.decode(ids, skip_special).map_err(|_| TokeniseError::Text)
    }

    fn prepared<'a>(&self, prompt: &str, text: &'a str) -> Cow<'a, str> {
        let text = if prompt.is_empty() { Cow::from(text) } else { format!("{prompt}{text}").into() };
        if self.lower_case { text.to_lowercase().into() } else { text }
    }

    fn uncut(&self) -> &Tokenizer {
        self.uncut.get_or_init(|| {
            let mut uncut = self.tokenizer.clone();
            uncut.with_truncation(None).expect("it fails for a limit without room alone");
            uncut
        })
    }
}

/// A text that cannot be made tokens. No message holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokeniseError {
    /// The tokenizer cannot take it.
    #[error("the tokenizer of this model cannot take this text")]
    Text,
    /// It is too long, and may not be cut.
    #[error(
        "a text has more than the {limit} tokens that this model takes, and the request forbids to cut it"
    )]
    TooLong {
        /// Tokens that there may be.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words and two special tokens, with what training left behind.
    pub(super) const JSON: &str = r#"{"version": "1.0",
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
    fn what_is_too_long_is_cut_where_the_client_says() {
        let tokeniser = Tokeniser::new(JSON.as_bytes(), 4, false).expect("a good file");
        let too_long = Err(TokeniseError::TooLong { limit: 4 });
        for (text, end, start, refuse) in [
            ("a", vec![1, 4, 2], vec![1, 4, 2], Ok(vec![1, 4, 2])),
            ("a b", vec![1, 4, 5, 2], vec![1, 4, 5, 2], Ok(vec![1, 4, 5, 2])),
            ("a a b", vec![1, 4, 4, 2], vec![1, 4, 5, 2], too_long.clone()),
            ("a a a a b b", vec![1, 4, 4, 2], vec![1, 5, 5, 2], too_long),
        ] {
            assert_eq!(tokeniser.ids_cut("", text, Cut::End), Ok(end), "{text}");
            assert_eq!(tokeniser.ids_cut("", text, Cut::Start), Ok(start), "{text}");
            assert_eq!(tokeniser.ids_cut("", text, Cut::Refuse), refuse, "{text}");
        }
    }

    #[test]
    fn tokens_tell_their_place_and_are_not_cut() {
        let tokeniser = Tokeniser::new(JSON.as_bytes(), 4, true).expect("a good file");
        let tokens = tokeniser.tokens("b ", "A c é", true).expect("a good text");
        let found: Vec<_> = tokens.iter().map(|t| (t.id, t.text.as_str(), t.bytes)).collect();
        let words =
            [(5, "b", Some((0, 1))), (4, "a", Some((2, 3))), (3, "c", Some((4, 5))), (3, "é", Some((6, 8)))];
        assert_eq!(found[1..5], words);
        assert_eq!((found[0], found[5]), ((1, "[CLS]", None), (2, "[SEP]", None)));
        assert_eq!(tokeniser.tokens("", "a", false).expect("a good text").len(), 1);
        assert_eq!(tokeniser.text(&[4, 5, 99], false), Ok("a b".into()));
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
