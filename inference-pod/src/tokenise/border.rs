//! Where a text can be cut before it is tokenised, so that the tokens of both parts are those of the whole.
//!
//! A long text is read from its beginning (or its end) in growing windows until there are as many tokens as the model
//! takes. That is right only if a window ends where nothing in the tokenizer looks across: which places those are
//! depends on its parts, and is `None` where a part is not known here. A text without such a place is read whole.

use serde_json::Value;
use tokenizers::AddedToken;

/// How much larger each window is than the one before: all together take at most 4/3 of the whole text.
const GROWTH: usize = 4;

/// What a text can be cut before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Border {
    /// Any ASCII white space. Words are taken apart at it and it is thrown away, so that it does not matter on which
    /// side it is. It is a starter in Unicode's sense: no normal form moves or joins anything across it.
    WhiteSpace,
    /// One space between two letters. The space belongs to the word behind it (`Ġword`, `▁word`), and since letters
    /// stand around it, it is no part of a run of white space that a rule could treat as one.
    Words,
}

/// Byte-level splits of which it is known that no alternative goes on across a space between letters: a space is only
/// ever the first character of a word, or in a run of white space. GPT-2's own is built into `ByteLevel`.
const SPLITS: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

impl Border {
    /// The border of a tokenizer with these parts, as `tokenizer.json` has them. Every model there is takes words one by
    /// one, so only what makes the words
    /// matters.
    pub(super) fn of(normalizer: &Value, pre_tokenizer: &Value, added: &[AddedToken]) -> Option<Self> {
        let border = normalised(normalizer)?.and(split(pre_tokenizer)?);
        added.iter().all(|token| border.never_crossed_by(token)).then_some(border)
    }

    /// The beginnings of a text, each longer than the one before; the last is the whole text.
    pub(super) fn beginnings(border: Option<Self>, text: &str, first: usize) -> impl Iterator<Item = &str> {
        let ends = sizes(text, first).filter_map(move |size| {
            let border = border?;
            (1..=size).rev().find(|&i| border.is_at(text, i))
        });
        ends.map(|end| &text[..end]).chain([text])
    }

    /// The ends of a text, each longer than the one before; the last is the whole text.
    pub(super) fn ends(border: Option<Self>, text: &str, first: usize) -> impl Iterator<Item = &str> {
        let starts = sizes(text, first).filter_map(move |size| {
            let border = border?;
            (text.len() - size..text.len()).find(|&i| border.is_at(text, i))
        });
        starts.map(|start| &text[start..]).chain([text])
    }

    /// Whether a byte of a text is a character that the text can be cut before.
    fn is_at(self, text: &str, i: usize) -> bool {
        let byte = text.as_bytes()[i];
        match self {
            // The other ASCII white space is a control character to some normalizers, and taken out.
            Self::WhiteSpace => matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
            Self::Words => {
                byte == b' '
                    && text[..i].chars().next_back().is_some_and(is_letter)
                    && text[i + 1..].chars().next().is_some_and(is_letter)
            }
        }
    }

    /// What both allow.
    fn and(self, other: Self) -> Self {
        if self == Self::Words { self } else { other }
    }

    /// Whether an added token, which is looked for in the text before it is split, never lies across a border.
    fn never_crossed_by(self, token: &AddedToken) -> bool {
        let content = token.content.as_str();
        // What a normalizer would make of another is not known here.
        if token.normalized && !content.is_ascii() {
            return false;
        }
        let has_white_space = content.contains(char::is_whitespace);
        match self {
            Self::WhiteSpace => !has_white_space,
            // A run of spaces alone is no space between letters. One that takes the space behind it with it would take it
            // from the next word.
            Self::Words => (!has_white_space || content.trim().is_empty()) && !token.rstrip,
        }
    }
}

fn sizes(text: &str, first: usize) -> impl Iterator<Item = usize> + use<'_> {
    let grown = std::iter::successors(Some(first.max(1)), |size| size.checked_mul(GROWTH));
    grown.take_while(|&size| size < text.len())
}

/// The borders that a normalizer leaves alone: it makes the same of both sides whether they are together or not.
fn normalised(normalizer: &Value) -> Option<Border> {
    let Some(kind) = kind(normalizer) else { return normalizer.is_null().then_some(Border::WhiteSpace) };
    match kind {
        "BertNormalizer" | "Lowercase" | "StripAccents" | "NFC" | "NFD" | "NFKC" | "NFKD" => {
            Some(Border::WhiteSpace)
        }
        // A character map of SentencePiece's, grapheme by grapheme: a space between letters is one of its own.
        "Precompiled" => Some(Border::Words),
        // At the end of a text alone; at its beginning a cut would make a space stand that is none in the whole.
        "Strip" => (normalizer["strip_left"] == false).then_some(Border::Words),
        // Runs of spaces, which none between letters is.
        "Replace" => (normalizer["pattern"]["Regex"] == " {2,}").then_some(Border::Words),
        "Sequence" => {
            let parts = normalizer["normalizers"].as_array()?.iter().map(normalised);
            parts.reduce(|a, b| Some(a?.and(b?))).unwrap_or(Some(Border::WhiteSpace))
        }
        _ => None,
    }
}

/// The borders that a pre-tokenizer makes two words of.
fn split(pre_tokenizer: &Value) -> Option<Border> {
    match kind(pre_tokenizer)? {
        "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => Some(Border::WhiteSpace),
        "Metaspace" => (pre_tokenizer["split"] == true).then_some(Border::Words),
        "ByteLevel" => (pre_tokenizer["use_regex"] == true).then_some(Border::Words),
        "Split" => {
            let known =
                pre_tokenizer["pattern"]["Regex"].as_str().is_some_and(|regex| SPLITS.contains(&regex));
            let as_known = pre_tokenizer["behavior"] == "Isolated" && pre_tokenizer["invert"] == false;
            (known && as_known).then_some(Border::Words)
        }
        // What the first has split stays so.
        "Sequence" => {
            let (first, others) = pre_tokenizer["pretokenizers"].as_array()?.split_first()?;
            split(first).filter(|_| others.iter().all(keeps_words))
        }
        _ => None,
    }
}

/// Whether a pre-tokenizer sees nothing but the word it is given.
fn keeps_words(pre_tokenizer: &Value) -> bool {
    matches!(
        kind(pre_tokenizer),
        Some("BertPreTokenizer" | "ByteLevel" | "Digits" | "Metaspace" | "Punctuation")
    )
}

fn kind(part: &Value) -> Option<&str> {
    part["type"].as_str()
}

/// Letters and digits of which no rule makes anything but a letter or a digit, and that form no unit with a space:
/// those of the scripts whose words are parted by spaces. Not all of them, for one that is missed costs time alone.
fn is_letter(c: char) -> bool {
    let in_script = matches!(c,
        '0'..='9' | 'A'..='Z' | 'a'..='z'
        | '\u{c0}'..='\u{24f}'     // Latin
        | '\u{391}'..='\u{3c9}'    // Greek
        | '\u{410}'..='\u{44f}'    // Cyrillic
        | '\u{5d0}'..='\u{5ea}'    // Hebrew
        | '\u{621}'..='\u{64a}'    // Arabic
        | '\u{905}'..='\u{939}'    // Devanagari
        | '\u{ac00}'..='\u{d7a3}'  // Hangul
    );
    in_script && c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn borders_are_those_that_every_part_respects() {
        let bert = json!({"type": "BertNormalizer"});
        let nfc = json!({"type": "NFC"});
        let charsmap = json!({"type": "Precompiled"});
        let runs = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
        let sequence = |parts: &[&Value]| json!({"type": "Sequence", "normalizers": parts});
        let words = json!({"type": "BertPreTokenizer"});
        let metaspace =
            |split: bool| json!({"type": "Metaspace", "prepend_scheme": "always", "split": split});
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "use_regex": use_regex});
        let regex = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let both = |parts: &[Value]| json!({"type": "Sequence", "pretokenizers": parts});
        for (normalizer, pre_tokenizer, border) in [
            (&bert, &words, Some(Border::WhiteSpace)),
            (&Value::Null, &words, Some(Border::WhiteSpace)),
            (&charsmap, &words, Some(Border::Words)),
            (&sequence(&[&charsmap, &runs]), &metaspace(true), Some(Border::Words)),
            (&charsmap, &both(&[json!({"type": "WhitespaceSplit"}), metaspace(true)]), Some(Border::Words)),
            (&sequence(&[]), &words, Some(Border::WhiteSpace)),
            (&nfc, &bytes(true), Some(Border::Words)),
            (&nfc, &both(&[regex(SPLITS[0]), bytes(false)]), Some(Border::Words)),
            // What is not known, or sees more than a word.
            (&nfc, &both(&[regex(r"\w+ \w+"), bytes(false)]), None),
            (&nfc, &bytes(false), None),
            (&Value::Null, &metaspace(false), None),
            (&json!({"type": "Prepend", "prepend": "▁"}), &words, None),
            (&json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}), &words, None),
            (&json!({"type": "Strip", "strip_left": true, "strip_right": true}), &words, None),
            (&sequence(&[&nfc, &json!({"type": "Nmt"})]), &words, None),
            (&nfc, &Value::Null, None),
            (&nfc, &both(&[]), None),
        ] {
            assert_eq!(Border::of(normalizer, pre_tokenizer, &[]), border, "{normalizer} {pre_tokenizer}");
        }
    }

    #[test]
    fn added_tokens_must_not_lie_across_a_border() {
        let token = |content: &str| AddedToken::from(content, true);
        for (token, white_space, words) in [
            (token("[SEP]"), true, true),
            (token("  "), false, true),
            (token("of course"), false, false),
            (token("<mask>").lstrip(true), true, true),
            (token("<mask>").rstrip(true), true, false),
            (token("é").normalized(true), false, false),
        ] {
            assert_eq!(Border::WhiteSpace.never_crossed_by(&token), white_space, "{:?}", token.content);
            assert_eq!(Border::Words.never_crossed_by(&token), words, "{:?}", token.content);
        }
    }

    #[test]
    fn windows_end_at_borders_and_grow_to_the_whole() {
        let beginnings = |border, text| Border::beginnings(border, text, 4).collect::<Vec<_>>();
        let ends = |border, text| Border::ends(border, text, 4).collect::<Vec<_>>();
        let text = "ab cd\tef gh  ij kl";
        assert_eq!(beginnings(Some(Border::WhiteSpace), text), ["ab", "ab cd\tef gh  ij", text]);
        assert_eq!(beginnings(Some(Border::Words), text), ["ab", "ab cd\tef gh  ij", text]);
        assert_eq!(ends(Some(Border::WhiteSpace), text), [" kl", " cd\tef gh  ij kl", text]);
        assert_eq!(ends(Some(Border::Words), text), [" kl", " cd\tef gh  ij kl", text]);
        assert_eq!(beginnings(None, text), [text]);
        assert_eq!(ends(None, text), [text]);
        for text in ["", "a", "abcdefghij", "日本語日本語"] {
            assert_eq!(beginnings(Some(Border::Words), text), [text]);
            assert_eq!(ends(Some(Border::Words), text), [text]);
        }
    }
}
