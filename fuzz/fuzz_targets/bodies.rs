//! Bodies and queries of requests: read or refused, with no panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inference_pod::api::read_anything(bytes));
