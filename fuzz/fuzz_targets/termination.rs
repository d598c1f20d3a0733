//! What the controller reads of a pod that ended, and what pods tell of themselves.
#![no_main]

use kembed_queue::wire::{Failure, Lane};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some(failure) = Failure::from_termination_message(text) {
        let written = failure.to_termination_message();
        assert!(written.len() <= 4096 && Failure::from_termination_message(&written).is_some());
    }
    let _ = Lane::parse(text);
    let _ = inference_pod::duration::parse(text);
    let _ = inference_pod::model::prompts::parse(text);
});
