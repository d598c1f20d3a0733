//! The program itself, asked for a GPU on machines that have none that it can use.

use std::process::Command;

use kembed_queue::wire::{Failure, FailureReason};

use super::{fake, support};

/// Runs the program with the stand-in as the machine's driver, and reads its last word.
fn failure(accelerator: &str, machine: &str) -> Failure {
    failure_of(&["--model", "/no/such/model"], accelerator, machine)
}

fn failure_of(flags: &[&str], accelerator: &str, machine: &str) -> Failure {
    let message = tempfile::NamedTempFile::new().expect("a temporary file");
    let library = fake::library();
    let output = Command::new(env!("CARGO_BIN_EXE_inference-pod"))
        .args(["serve", "--listen", "127.0.0.1:0", "--accelerator", accelerator])
        .args(flags)
        .arg("--termination-message")
        .arg(message.path())
        .env_clear()
        .env("LD_LIBRARY_PATH", library.parent().expect("it is in a folder"))
        .env("KEMBED_FAKE_CUDA", machine)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&message).expect("it can be read");
    Failure::from_termination_message(&text).unwrap_or_else(|| panic!("{text:?} is no failure"))
}

#[test]
fn what_keeps_a_pod_from_its_gpu_is_told_before_the_model_is_looked_for() {
    for (machine, why) in [
        ("no-device", "the driver of the GPU does not work: cuInit failed with CUDA_ERROR_NO_DEVICE (100)"),
        ("none-visible", "the driver sees no GPU: none was given to the container"),
        ("old-driver", "the node's driver is made for CUDA 12.4, and 13.0 or newer is needed"),
        ("old-device", "Stand-in 0 has compute capability 5.0, and 7.5 or newer is needed"),
    ] {
        let failure = failure("nvidia.com/gpu", machine);
        assert_eq!(failure.reason, FailureReason::AcceleratorUnavailable, "{machine}");
        assert_eq!(failure.message, format!("nvidia.com/gpu was asked for, and {why}"));
    }
}

/// The library of tests has no code for GPUs: it is found out before anything is computed, and nothing falls back to the CPU.
#[test]
fn a_library_without_code_for_gpus_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    support::write(folder.path(), &support::small_model());
    let library = support::onnxruntime();
    let model = folder.path().to_str().expect("a plain path");
    let failure = failure_of(
        &["--model", model, "--onnxruntime", library.to_str().expect("a plain path")],
        "nvidia.com/gpu",
        "",
    );
    assert_eq!(failure.reason, FailureReason::AcceleratorUnavailable, "{}", failure.message);
    let why = "nvidia.com/gpu was asked for, and the network cannot be put on the GPU: ";
    assert!(failure.message.starts_with(why) && failure.message.contains("CUDA"), "{}", failure.message);
}

#[test]
fn other_makers_accelerators_are_not_known() {
    let failure = failure("amd.com/gpu", "");
    assert_eq!(failure.reason, FailureReason::AcceleratorUnavailable);
    assert!(failure.message.starts_with("amd.com/gpu was asked for"), "{}", failure.message);
}
