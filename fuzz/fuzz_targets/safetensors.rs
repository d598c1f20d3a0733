//! The header of a file of weights, and one tensor where it says that one lies.
#![no_main]

use std::{
    fs::File,
    io::Write,
    sync::{LazyLock, Mutex},
};

use inference_pod::model::weights::Weights;
use tempfile::NamedTempFile;

static FILE: LazyLock<Mutex<NamedTempFile>> =
    LazyLock::new(|| Mutex::new(NamedTempFile::new_in("/dev/shm").expect("memory")));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = FILE.lock().expect("nobody panicked");
    File::create(file.path()).and_then(|mut file| file.write_all(bytes)).expect("room");
    let Ok(weights) = Weights::open(&[file.path()]) else { return };
    for shape in [&[][..], &[1], &[2, 2], &[usize::MAX, 2]] {
        let _ = weights.place("a", shape);
        let _ = weights.floats("a", shape);
    }
});
