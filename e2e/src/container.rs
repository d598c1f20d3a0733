//! The process of a pod, for tests that end it.

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;

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
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
    let id = status.and_then(|status| status.container_id.as_deref()).context("the pod has no container")?;
    cluster(&["ctr", "task", "kill", "--signal", signal, id.trim_start_matches("containerd://")]).await?;
    Ok(())
}

/// How often the only container of a pod was started again.
pub fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
    status.map_or(0, |status| status.restart_count)
}
