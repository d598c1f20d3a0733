//! Texts to token ids, and back.

mod border;
mod pairs;

use std::{borrow::Cow, sync::OnceLock};

use serde::de::IgnoredAny;
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams};

use self::border::Border;
pub use self::pairs::{Pairs, Typed};
use crate::model::{ModelError, files::TOKENIZER};

/// Bytes of a text, for each token that the model takes, that are read at first: an English token is of five with the
/// space before it, so that these are mostly enough.
const BYTES_PER_TOKEN: usize = 8;

/// A model's tokenizer, cutting at the model's limit and padding nothing.
pub struct Tokeniser {
    tokenizer: Tokenizer,
    /// The same one that does not cut, made when it is first needed: few clients do, and it takes memory.
    uncut: OnceLock<Tokenizer>,
    lower_case: bool,
    max_tokens: usize,
    /// Special tokens around every text.
    special: usize,
    /// Where a text can be cut before it is read. Without one it is read whole.
    border: Option<Border>,
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
        // The library panics where a file ends inside its decoder.
        let whole: Result<IgnoredAny, _> = serde_json::from_slice(json);
        whole.map_err(|e| ModelError::invalid(TOKENIZER, e))?;
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
        let border = border(&tokenizer);
        Ok(Self { tokenizer, uncut: OnceLock::new(), lower_case, max_tokens, special, border })
    }

    /// The ids of a text, special tokens included, cut at the limit. On async threads for short texts alone: it takes
    /// time in proportion to the tokens that count, or to the text if it has no place where it can be cut.
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
        let text = with_prompt(prompt, text);
        match cut {
            Cut::End | Cut::Refuse => self.first_ids(&text, cut == Cut::Refuse),
            Cut::Start => self.last_ids(&text),
        }
    }

    /// Reads as much of the beginning as has enough tokens.
    fn first_ids(&self, text: &str, refuse: bool) -> Result<Vec<u32>, TokeniseError> {
        let mut ids = Vec::new();
        for part in Border::beginnings(self.border, text, self.window()) {
            let part = self.in_case(part);
            ids = self.encode(&part, true)?;
            if ids.len() < self.max_tokens {
                continue;
            }
            if !refuse {
                break;
            }
            if self.is_too_long(&part)? {
                return Err(TokeniseError::TooLong { limit: self.max_tokens });
            }
        }
        Ok(ids)
    }

    /// Reads as much of the end as has enough tokens.
    fn last_ids(&self, text: &str) -> Result<Vec<u32>, TokeniseError> {
        let mut ids = Vec::new();
        for part in Border::ends(self.border, text, self.window()) {
            let part = self.in_case(part);
            ids = self.encode(&part, true)?;
            if ids.len() == self.max_tokens && self.is_too_long(&part)? {
                return self.cut_start(&part);
            }
        }
        Ok(ids)
    }

    /// Whether a text has more tokens than there may be. One that is cut is of just as many: without special tokens
    /// it shows, for then there is room for more.
    fn is_too_long(&self, text: &str) -> Result<bool, TokeniseError> {
        Ok(self.encode(text, false)?.len() + self.special > self.max_tokens)
    }

    fn cut_start(&self, text: &str) -> Result<Vec<u32>, TokeniseError> {
        let uncut = self.uncut();
        let mut encoding = uncut.encode_fast(text, false).map_err(|_| TokeniseError::Text)?;
        encoding.truncate(self.max_tokens - self.special, 0, TruncationDirection::Left);
        let encoding = uncut.post_process(encoding, None, true).map_err(|_| TokeniseError::Text)?;
        Ok(encoding.get_ids().to_vec())
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokeniseError> {
        let encoding = self.tokenizer.encode_fast(text, special).map_err(|_| TokeniseError::Text)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Bytes of a text that are read at first.
    fn window(&self) -> usize {
        self.max_tokens.saturating_mul(BYTES_PER_TOKEN)
    }

    /// Whether a long text is read no further than its tokens count. Else it is read whole.
    pub fn reads_in_part(&self) -> bool {
        self.border.is_some()
    }

    /// The tokens of a text, all of them, with special ones around if `special`. Bytes count from the beginning of
    /// the prompt.
    ///
    /// # Errors
    /// As [`Tokeniser::ids`].
    pub fn tokens(&self, prompt: &str, text: &str, special: bool) -> Result<Vec<Token>, TokeniseError> {
        let text = with_prompt(prompt, text);
        let text = self.in_case(&text);
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

    /// In lower case, if the model wants that. No letter's case depends on what is beyond a border.
    fn in_case<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lower_case { text.to_lowercase().into() } else { text.into() }
    }

    fn uncut(&self) -> &Tokenizer {
        self.uncut.get_or_init(|| {
            let mut uncut = self.tokenizer.clone();
            uncut.with_truncation(None).expect("it fails for a limit without room alone");
            uncut
        })
    }
}

fn with_prompt<'a>(prompt: &str, text: &'a str) -> Cow<'a, str> {
    if prompt.is_empty() { text.into() } else { format!("{prompt}{text}").into() }
}

fn border(tokenizer: &Tokenizer) -> Option<Border> {
    // As it was read, with defaults filled in. What cannot be written is not known.
    let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
    let pre_tokenizer = serde_json::to_value(tokenizer.get_pre_tokenizer()).ok()?;
    let added: Vec<_> = tokenizer.get_added_tokens_decoder().into_values().collect();
    Border::of(&normalizer, &pre_tokenizer, &added)
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
        assert!(Tokeniser::new(b"{}", 9, false).is_err());
        for end in 0..JSON.len() {
            assert!(Tokeniser::new(&JSON.as_bytes()[..end], 9, false).is_err(), "{end} bytes");
        }
    }
}
