//! The process of a pod, for tests that end it.

use anyhow::Context;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::command::cluster;

/// Kills the only container of a pod, as a crash would; returns how often it had been started again until then.
///
/// # Errors
/// If it does not run.
pub async fn kill(pod: &Pod) -> anyhow::Result<i32> {
    signal(pod, "SIGKILL").await?;
    Ok(restarts(pod))
}

/// Sends the process of the only container of a pod a signal.
///
/// # Errors
/// If it does not run.
pub async fn signal(pod: &Pod, signal: &str) -> anyhow::Result<()> {
    let id = status(pod).and_then(|status| status.container_id.as_deref());
    let id = id.context("the pod has no container")?;
    cluster(&["ctr", "task", "kill", "--signal", signal, id.trim_start_matches("containerd://")]).await?;
    Ok(())
}

/// How often the only container of a pod was started again.
pub fn restarts(pod: &Pod) -> i32 {
    status(pod).map_or(0, |status| status.restart_count)
}

/// Whether the only container of a pod runs.
pub fn runs(pod: &Pod) -> bool {
    status(pod).is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}
