//! Stands in for an inference pod and computes nothing. It is started as one, and passes over what it has no use for.
//!
//! `STUB_RATE` is how many tokens it takes for computed in a second, `STUB_START` how many seconds it takes to be ready. Asked
//! for an accelerator it says that it has a GPU, whose vectors are as alike those of a CPU as `STUB_COSINE` says.

use std::{env, net::SocketAddr, process::ExitCode, str::FromStr, time::Duration};

use anyhow::{Context, anyhow};
use e2e::stub::{ALIKE, Stub, gpu, of_rate};
use kembed_queue::wire::{Failure, FailureReason, POD_PORT};
use kembed_runtime::shutdown;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (rate, start) = (number("STUB_RATE", 5000.)?, number("STUB_START", 0.)?);
    let mut stub = Stub::new(of_rate(rate), Duration::try_from_secs_f64(start)?);
    if flag("--accelerator").is_some() {
        let gpu = gpu(number("STUB_COSINE", ALIKE)?);
        if !gpu.verification.passed {
            return end(&format!("{} computes wrong vectors", gpu.name));
        }
        stub = stub.on(gpu);
    }
    let shutdown = shutdown::on_signal()?;
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([0; 4], POD_PORT))).await?;
    axum::serve(listener, stub.router()).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(ExitCode::SUCCESS)
}

/// As an inference pod does whose GPU computes wrong vectors.
fn end(message: &str) -> anyhow::Result<ExitCode> {
    let failure = Failure { reason: FailureReason::AcceleratorInaccurate, message: message.to_owned() };
    let file = flag("--termination-message").context("there is no --termination-message")?;
    std::fs::write(&file, failure.to_termination_message())
        .with_context(|| format!("failed to write {file}"))?;
    Ok(ExitCode::FAILURE)
}

/// The value of one of the flags that it is started with.
fn flag(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

fn number(name: &str, default: f64) -> anyhow::Result<f64> {
    let Ok(text) = env::var(name) else { return Ok(default) };
    f64::from_str(&text).map_err(|error| anyhow!(error)).with_context(|| format!("failed to read {name}"))
}
