//! Whether what pods compute on may be trusted, from what they say of it. Pure.

use std::collections::BTreeSet;

use kembed_crds::conditions::Reason;
use kembed_queue::device::Device;

use super::{
    pods::{Hindrance, PodState},
    status::ObservedPod,
};

/// Characters of a device's name that are told on: pods send it.
const NAME_LIMIT: usize = 100;

/// Kinds of devices that a message names.
const NAMED: usize = 4;

/// Whether a pod has shown that its accelerator computes what a CPU does.
pub fn is_trusted(pod: &ObservedPod) -> bool {
    !pod.devices.is_empty() && Device::first_wrong(&pod.devices).is_none()
}

/// Reasons of pods that speak of their accelerators.
pub fn is_reason(reason: Reason) -> bool {
    matches!(reason, Reason::AcceleratorUnavailable | Reason::AcceleratorLost | Reason::AcceleratorInaccurate)
}

/// What a pod itself tells of a device that computes wrong vectors.
pub fn wrong(pods: &[ObservedPod]) -> Option<Hindrance> {
    let (pod, device) = live(pods).find_map(|pod| Some((pod, Device::first_wrong(&pod.devices)?)))?;
    let message = format!(
        "pod {}: {} computes wrong vectors: the cosine with those of the CPU is {}, and at least {} is right",
        pod.name,
        name(device),
        device.verification.least_cosine,
        device.verification.tolerance
    );
    Some(Hindrance::new(Reason::AcceleratorInaccurate, message))
}

/// A pod that has loaded its model and does not say what it computes on.
pub fn silent(pods: &[ObservedPod]) -> Option<Hindrance> {
    let pod = live(pods).find(|pod| pod.space.is_some() && pod.devices.is_empty())?;
    let message = format!("pod {} has loaded the model and does not say what it computes on", pod.name);
    Some(Hindrance::new(Reason::NotVerified, message))
}

/// What all pods that have reported compute on, and how well. Pods that compute alike on devices of one kind are told of
/// once, so that the words do not change with their number.
pub fn verified(pods: &[ObservedPod]) -> Option<String> {
    let devices: Vec<_> = live(pods).flat_map(|pod| &pod.devices).collect();
    let least = devices.iter().min_by(|a, b| margin(a).total_cmp(&margin(b)))?.verification;
    let kinds: BTreeSet<_> =
        devices.iter().map(|device| format!("{} in {}", name(device), clip(&device.precision))).collect();
    let more = if kinds.len() > NAMED { " and others" } else { "" };
    let kinds = kinds.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    Some(format!(
        "{kinds}{more}: the least cosine with vectors of a CPU is {:.6}, of {} texts; at least {} is right",
        least.least_cosine, least.texts, least.tolerance
    ))
}

fn margin(device: &Device) -> f64 {
    device.verification.least_cosine - device.verification.tolerance
}

fn live(pods: &[ObservedPod]) -> impl Iterator<Item = &ObservedPod> {
    pods.iter().filter(|pod| pod.state != PodState::Gone)
}

fn name(device: &Device) -> String {
    clip(&device.name)
}

fn clip(text: &str) -> String {
    text.chars().take(NAME_LIMIT).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use kembed_queue::{device::Verification, wire::Space};

    use super::*;

    /// A device whose vectors are so alike those of a CPU.
    pub(crate) fn device(cosine: f64) -> Device {
        Device {
            name: "NVIDIA H100 80GB HBM3".into(),
            compute_capability: "9.0".into(),
            memory_bytes: 80 << 30,
            driver_version: Some("580.65.06".into()),
            cuda_version: "13.0".into(),
            precision: "float16".into(),
            verification: Verification::of(3, cosine, 0.999),
        }
    }

    fn pod(state: PodState, devices: Vec<Device>) -> ObservedPod {
        let space = Space { digest: "sha256:a".into(), revision: None, dimension: 3, max_tokens: 16 };
        ObservedPod { name: "minilm-1".into(), state, space: Some(space), devices }
    }

    #[test]
    fn one_wrong_device_is_enough_to_trust_a_pod_with_nothing() {
        let good = pod(PodState::Ready, vec![device(0.9998), device(0.9997)]);
        assert!(is_trusted(&good));
        assert_eq!((wrong(std::slice::from_ref(&good)), silent(std::slice::from_ref(&good))), (None, None));
        let bad = pod(PodState::Ready, vec![device(0.9998), device(0.25)]);
        assert!(!is_trusted(&bad));
        let told = wrong(&[good, bad]).expect("one is wrong");
        assert_eq!(told.reason, Reason::AcceleratorInaccurate);
        assert_eq!(
            told.message,
            "pod minilm-1: NVIDIA H100 80GB HBM3 computes wrong vectors: the cosine with those of the CPU is \
             0.25, and at least 0.999 is right"
        );
    }

    #[test]
    fn a_pod_without_devices_is_not_trusted() {
        let none = pod(PodState::Ready, Vec::new());
        assert!(!is_trusted(&none));
        let told = silent(&[none]).expect("it says nothing");
        assert_eq!(told.reason, Reason::NotVerified);
        let loading = ObservedPod { space: None, ..pod(PodState::Running, Vec::new()) };
        assert_eq!(silent(&[loading]), None, "it has still time");
    }

    #[test]
    fn the_words_name_each_kind_once_and_the_least_cosine() {
        let pods = [pod(PodState::Ready, vec![device(0.9998)]), pod(PodState::Ready, vec![device(0.99975)])];
        assert_eq!(
            verified(&pods).as_deref(),
            Some(
                "NVIDIA H100 80GB HBM3 in float16: the least cosine with vectors of a CPU is 0.999750, of 3 texts; \
                 at least 0.999 is right"
            )
        );
        assert_eq!(verified(&[pod(PodState::Ready, Vec::new())]), None);
    }

    #[test]
    fn who_has_gone_has_no_say() {
        let gone = [pod(PodState::Gone, vec![device(0.1)])];
        assert_eq!((wrong(&gone), silent(&gone), verified(&gone)), (None, None, None));
    }

    #[test]
    fn what_a_pod_sends_does_not_make_a_message_long() {
        let long = |i| Device { name: format!("{i}{}", "x".repeat(10_000)), ..device(0.9998) };
        let pods = [pod(PodState::Ready, (0..100).map(long).collect())];
        assert!(verified(&pods).is_some_and(|words| words.len() < 1000 && words.contains(" and others: ")));
    }
}
