//! Pods come and go under load, and no request fails.

use anyhow::Context;
use e2e::{
    TempNamespace, disruption,
    load::{Load, Manner},
    service::minilm,
    with_temp_ns,
};

/// Each asks again as soon as it has an answer, or nearly.
const CLIENTS: usize = 30;

#[tokio::test]
async fn pods_come_and_go_and_no_request_fails() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        under_load(&ns, "the rollout", disruption::roll(&ns, "minilm")).await?;
        under_load(&ns, "the deletion of the only pod", disruption::delete(&ns, "minilm")).await?;
        under_load(&ns, "the crash of the only pod", disruption::kill(&ns, "minilm")).await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=3"]).await?;
        ns.await_serving("minilm", 3).await?;
        under_load(&ns, "the crash of one of three pods", disruption::kill(&ns, "minilm")).await?;
        under_load(&ns, "the eviction of one of three pods", disruption::evict(&ns, "minilm")).await?;
        under_load(&ns, "the way from three pods to one", disruption::to_one(&ns, "minilm")).await
    })
    .await
}

/// Sees to it that requests go on being answered while something happens.
async fn under_load(
    ns: &TempNamespace,
    what: &str,
    event: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let base = format!("http://minilm.{}.svc", ns.name);
    let load = Load::of(Manner::of(CLIENTS), &ns.kembed.gateway, &base);
    let ended = event.await;
    // However long the answers take: each client has asked before it and goes on after it.
    let during = load.answered();
    let answered = load.stop_after(2 * CLIENTS).await.with_context(|| format!("during {what}"))?;
    ended.with_context(|| format!("during {what}"))?;
    eprintln!("during {what}: {during} requests, and {} more, all answered", answered - during);
    Ok(())
}
