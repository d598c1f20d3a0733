//! Inference pods that compute nothing: they take as long over requests as the pods of `operator simulate` would, and speak
//! as real ones do. So a cluster of two cores can have as many busy pods as a test needs.

pub mod batches;
pub mod fake_nodes;
pub mod serve;

use std::time::{Duration, Instant};

use kembed_queue::{
    credit::PodLoad,
    device::{Device, Verification},
    wire::{Info, Space},
};
use kembed_scaling::simulate::PodModel;

use self::batches::Batches;

/// Of all stubs: they all answer the same vector.
const DIGEST: &str = "sha256:57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab57ab";

/// What is answered for any text.
const VECTOR: [f64; 2] = [1., 0.];

/// Tokens of a text beside its words, as real models have them.
const FRAME: u64 = 2;

/// A pod, or what stands for one.
#[derive(Clone)]
pub struct Stub {
    ready: Instant,
    model: PodModel,
    batches: Batches,
    devices: Vec<Device>,
}

/// As alike are vectors in 16-bit floats to those in 32-bit ones.
pub const ALIKE: f64 = 0.9998;

/// What pods with GPUs hold to be right.
const TOLERANCE: f64 = 0.999;

/// A GPU that does not exist, whose vectors are so alike those of a CPU.
pub fn gpu(cosine: f64) -> Device {
    Device {
        name: "Stub GPU".to_owned(),
        compute_capability: "9.0".to_owned(),
        memory_bytes: 80 << 30,
        driver_version: Some("580.65.06".to_owned()),
        cuda_version: "13.0".to_owned(),
        precision: "float16".to_owned(),
        verification: Verification::of(8, cosine, TOLERANCE),
    }
}

impl Stub {
    /// One that says that it is ready after so long. Lives on the runtime that this is called on.
    pub fn new(model: PodModel, start: Duration) -> Self {
        Self { ready: Instant::now() + start, model, batches: Batches::new(model), devices: Vec::new() }
    }

    /// One that says to compute on this.
    pub fn on(self, device: Device) -> Self {
        Self { devices: vec![device], ..self }
    }

    fn is_ready(&self) -> bool {
        Instant::now() >= self.ready
    }

    /// As a pod does: work for the batch that it computes and for the next.
    fn credit(&self) -> u64 {
        2 * u64::from(self.model.batch_tokens)
    }

    /// It is taken as having measured itself when it was warmed up.
    fn load(&self, work: u64) -> PodLoad {
        PodLoad { credit: self.credit(), work, rate: self.model.rate() as u64, sessions: 1 }
    }

    fn info(&self) -> Info {
        let (dimension, max_tokens) = (VECTOR.len() as u32, u32::MAX >> 1);
        Info {
            model_id: "stub".to_owned(),
            model_sha: None,
            max_input_length: max_tokens,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            space: Space { digest: DIGEST.to_owned(), revision: None, dimension, max_tokens },
            tokens_per_second: Some(self.model.rate() as u64),
            devices: self.devices.clone(),
        }
    }
}

/// A pod of so many tokens a second when it always has enough to do, as `operator simulate --pod-rate` has it.
pub fn of_rate(rate: f64) -> PodModel {
    let model = PodModel::default();
    PodModel { token_seconds: 1. / rate - model.batch_seconds / f64::from(model.batch_tokens), ..model }
}

/// Tokens of a text: its words, and two more.
pub fn tokens(text: &str) -> u64 {
    text.split_whitespace().count() as u64 + FRAME
}

/// A text of so many tokens, three at least.
pub fn text(tokens: u64) -> String {
    let words = usize::try_from(tokens.saturating_sub(FRAME)).unwrap_or(usize::MAX).max(1);
    // With its blank such a word has four bytes, which is what a token is taken for while nothing better is known.
    vec!["the"; words].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_the_tokens_that_were_asked_for() {
        for wanted in [3, 4, 100] {
            assert_eq!(tokens(&text(wanted)), wanted);
        }
        assert_eq!(tokens(&text(0)), 3);
    }
}
