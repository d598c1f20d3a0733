//! What a pod computes on beside its CPU, and why that may be trusted: a part of what `/info` tells.

use serde::{Deserialize, Serialize};

/// A device that a pod computes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// As its maker calls it.
    pub name: String,
    /// What it can do, as its maker numbers it: `9.0`.
    pub compute_capability: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Release of its driver, where the node tells it: `580.65.06`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// The newest CUDA that its driver can run: `13.0`.
    pub cuda_version: String,
    /// The numbers that it computes in.
    pub precision: String,
    /// What was seen of its vectors.
    pub verification: Verification,
}

/// How alike a device's vectors are to those that the CPU computes of the same texts in 32-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Texts that both have computed.
    pub texts: u32,
    /// The least cosine between the two vectors of a text.
    pub least_cosine: f64,
    /// The least cosine that is right in these numbers.
    pub tolerance: f64,
    /// Whether the device may be used. Inference pods end where it may not; whoever hears of one nevertheless must not trust
    /// what the pod answers.
    pub passed: bool,
}

impl Verification {
    /// The verdict on what was seen. A cosine that is no number is not alike.
    pub fn of(texts: u32, least_cosine: f64, tolerance: f64) -> Self {
        Self { texts, least_cosine, tolerance, passed: texts > 0 && least_cosine >= tolerance }
    }
}

impl Device {
    /// The first of these that must not be trusted.
    pub fn first_wrong(devices: &[Self]) -> Option<&Self> {
        devices.iter().find(|device| !device.verification.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_less_alike_than_is_right_or_was_not_seen_has_not_passed() {
        for (texts, cosine, passed) in
            [(3, 0.9995, true), (3, 0.999, true), (3, 0.9989, false), (3, f64::NAN, false), (0, 1., false)]
        {
            assert_eq!(Verification::of(texts, cosine, 0.999).passed, passed, "{texts} {cosine}");
        }
    }
}
