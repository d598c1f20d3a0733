//! Long texts are read in part, and have the tokens that they have when they are read whole.

use std::{fs, sync::LazyLock};

use inference_pod::tokenise::{Cut, TokeniseError, Tokeniser};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, pre_tokenizers::byte_level::ByteLevel};

/// How a model of the Qwen family takes texts apart.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn added(tokens: &[(&str, bool, bool)]) -> Value {
    let token = |(i, &(content, lstrip, rstrip)): (usize, &(&str, bool, bool))| {
        json!({"id": i, "content": content, "single_word": i == 2, "lstrip": lstrip, "rstrip": rstrip,
            "normalized": false, "special": true})
    };
    tokens.iter().enumerate().map(token).collect()
}

fn file(normalizer: Value, pre_tokenizer: Value, model: Value, added: Value) -> String {
    let processor = json!({"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0],
        "trim_offsets": true, "add_prefix_space": false});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": processor, "decoder": null,
        "model": model})
    .to_string()
}

/// A tokenizer of bytes, with some words in its vocabulary.
fn byte_level(normalizer: Value, pre_tokenizer: Value) -> String {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort();
    let merges =
        [("a", "b"), ("Ġ", "a"), ("Ġ", "Ġ"), ("ĠĠ", "Ġ"), ("Ġa", "b"), ("'", "s"), ("Ċ", "Ċ"), ("b", "Ġ")];
    let special = ["<s>", "</s>", "word", "<mask>", "  "].map(String::from);
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let vocabulary: serde_json::Map<_, _> = special
        .into_iter()
        .chain(bytes)
        .chain(merged)
        .enumerate()
        .map(|(i, token)| (token, json!(i)))
        .collect();
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
        "merges": merges.map(|(a, b)| format!("{a} {b}"))});
    let added = [
        ("<s>", false, false),
        ("</s>", false, false),
        ("word", false, false),
        ("<mask>", true, false),
        ("  ", false, false),
    ];
    file(normalizer, pre_tokenizer, model, self::added(&added))
}

/// A tokenizer as SentencePiece trains them.
fn unigram(normalizer: Value, pre_tokenizer: Value) -> String {
    let pieces = [
        "<s>", "</s>", "word", "<mask>", "<unk>", "▁", "a", "b", "ab", "▁a", "▁ab", "ba", "e", "é", "▁é",
        "s", "'", "д", "▁д", "1",
    ];
    let vocabulary: Vec<_> =
        pieces.iter().enumerate().map(|(i, piece)| json!([piece, -0.5 * i as f64])).collect();
    let model = json!({"type": "Unigram", "unk_id": 4, "vocab": vocabulary, "byte_fallback": false});
    let added =
        [("<s>", false, false), ("</s>", false, false), ("word", false, false), ("<mask>", true, false)];
    file(normalizer, pre_tokenizer, model, self::added(&added))
}

/// A tokenizer of each kind, and whether it reads long texts in part.
fn kinds() -> Vec<(&'static str, String, bool)> {
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
    let bytes = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
    let (nfc, nfkc) = (json!({"type": "NFC"}), json!({"type": "NFKC"}));
    let runs = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
    let nmt = json!({"type": "Sequence", "normalizers": [nfkc, {"type": "Strip", "strip_left": false, "strip_right": true}, runs]});
    let qwen = json!({"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": false});
    let sequence = |parts: Value| json!({"type": "Sequence", "pretokenizers": parts});
    let small = |name| {
        let path = format!("{}/tests/golden/{name}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("it can be read")
    };
    vec![
        ("BERT", small("bert"), true),
        ("no token before the text", small("qwen3"), true),
        ("RoBERTa", byte_level(Value::Null, bytes(true, true)), true),
        ("ModernBERT", byte_level(nfc.clone(), bytes(false, true)), true),
        ("Qwen", byte_level(nfc, sequence(json!([qwen, bytes(false, false)]))), true),
        ("XLM-RoBERTa", unigram(nmt.clone(), metaspace("always", true)), true),
        (
            "XLM-RoBERTa of old",
            unigram(nmt.clone(), sequence(json!([{"type": "WhitespaceSplit"}, metaspace("first", true)]))),
            true,
        ),
        ("T5", unigram(runs, metaspace("first", true)), true),
        ("sentences as one", unigram(nmt, metaspace("always", false)), false),
    ]
}

/// A tokenizer of ours, and the library's own that reads all of a text and cuts by itself.
struct Pair {
    kind: &'static str,
    lower_case: bool,
    ours: Tokeniser,
    first: Tokenizer,
    last: Tokenizer,
    whole: Tokenizer,
}

/// Tokens that the tokenizers below take. Windows are of eight bytes for each at first.
const LIMIT: usize = 7;

/// Made once, for it takes long.
static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let library = |json: &str, cut: Option<TruncationDirection>| {
        let mut tokenizer = Tokenizer::from_bytes(json).expect("a good file");
        let cut = cut.map(|direction| TruncationParams {
            max_length: LIMIT,
            direction,
            ..TruncationParams::default()
        });
        tokenizer.with_padding(None).with_truncation(cut).expect("room");
        tokenizer
    };
    let pair = |lower_case: bool, (kind, json, _): (&'static str, String, bool)| Pair {
        kind,
        lower_case,
        ours: Tokeniser::new(json.as_bytes(), LIMIT, lower_case).expect("a good file"),
        first: library(&json, Some(TruncationDirection::Right)),
        last: library(&json, Some(TruncationDirection::Left)),
        whole: library(&json, None),
    };
    [false, true]
        .into_iter()
        .flat_map(|lower| kinds().into_iter().map(move |kind| pair(lower, kind)))
        .collect()
});

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, true).expect("a good text").get_ids().to_vec()
}

fn texts() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        8 => "[ab]{1,5}",
        8 => Just(" ".to_owned()),
        2 => "[ \t\r\n]{1,4}",
        4 => proptest::sample::select(vec![
            "é", "e\u{301}", " \u{301}a", "\u{301}", "Σ", "ΑΣ ΑΣ", "İ", "д", "\u{d4e}", "\u{94d}", "\u{915}", "日本", "한국",
            "👩‍👩‍👧", "\u{200d}", "▁", "<s>", "</s>", "<mask>", " <mask> ", "word", "wordy", "[SEP]", "[CLS]", "\u{a0}", "\u{2003}",
            "\u{3000}", "\0", "\u{7f}", "\u{b}", "\u{fffd}", "'s", "1", "12", "½", "\u{fdfa}", "!", "...", "-",
        ]).prop_map(String::from),
        1 => any::<String>(),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-z]{90,130}",
    ];
    proptest::collection::vec(pieces, 0..200).prop_map(|pieces| pieces.concat())
}

proptest! {
    // Each is a text for eighteen tokenizers, three ways.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_part_has_the_tokens_that_the_whole_has(text in texts()) {
        for Pair { kind, lower_case, ours, first, last, whole } in &*PAIRS {
            let as_wanted = if *lower_case { text.to_lowercase() } else { text.clone() };
            let whole = ids(whole, &as_wanted);
            let limit = LIMIT;
            let refused = if whole.len() > limit { Err(TokeniseError::TooLong { limit }) } else { Ok(whole) };
            prop_assert_eq!(ours.ids_cut("", &text, Cut::End), Ok(ids(first, &as_wanted)), "{}", kind);
            prop_assert_eq!(ours.ids_cut("", &text, Cut::Start), Ok(ids(last, &as_wanted)), "{}", kind);
            prop_assert_eq!(ours.ids_cut("", &text, Cut::Refuse), refused, "{}", kind);
        }
    }
}

/// What is not read cannot be at fault.
#[test]
fn the_rest_of_a_long_text_is_not_read() {
    let model = json!({"type": "WordLevel", "unk_token": "none", "vocab": {"<s>": 0, "</s>": 1, "a": 2}});
    let whitespace = json!({"type": "WhitespaceSplit"});
    let json = file(Value::Null, whitespace, model, json!([]));
    let tokeniser = Tokeniser::new(json.as_bytes(), 8, false).expect("a good file");
    let good = "a ".repeat(100);
    assert_eq!(tokeniser.ids_cut("", "unknown", Cut::End), Err(TokeniseError::Text));
    assert_eq!(tokeniser.ids_cut("", &format!("{good}unknown"), Cut::End), Ok(vec![0, 2, 2, 2, 2, 2, 2, 1]));
    assert_eq!(
        tokeniser.ids_cut("", &format!("unknown {good}"), Cut::Start),
        Ok(vec![0, 2, 2, 2, 2, 2, 2, 1])
    );
    let too_long = Err(TokeniseError::TooLong { limit: 8 });
    assert_eq!(tokeniser.ids_cut("", &format!("{good}unknown"), Cut::Refuse), too_long);
}

#[test]
fn kinds_that_read_in_part_are_known() {
    let text = "ab word ".repeat(20_000);
    for (kind, json, in_part) in kinds() {
        let tokeniser = Tokeniser::new(json.as_bytes(), 8, false).expect("a good file");
        assert_eq!(tokeniser.reads_in_part(), in_part, "{kind}");
        assert_eq!(tokeniser.ids("", &text).map(|ids| ids.len()), Ok(8), "{kind}");
    }
}
