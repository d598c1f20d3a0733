//! A `tokenizer.json`, and a text for it behind a byte of one.
#![no_main]

use inference_pod::tokenise::{Cut, Tokeniser};

libfuzzer_sys::fuzz_target!(|input: &str| {
    let (json, text) = input.split_once('\u{1}').unwrap_or((input, "a b c"));
    let Ok(tokeniser) = Tokeniser::new(json.as_bytes(), 8, false) else { return };
    for cut in [Cut::End, Cut::Start, Cut::Refuse] {
        if let Ok(ids) = tokeniser.ids_cut("", text, cut) {
            assert!(ids.len() <= 8);
        }
    }
    let _ = tokeniser.tokens("", text, true);
});
