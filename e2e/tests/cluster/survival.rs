//! Pods come and go under load, and no request fails.

use anyhow::{Context, ensure};
use e2e::{TempNamespace, container, load::Load, service::minilm, with_temp_ns};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

/// Each asks again as soon as it has an answer, or nearly.
const CLIENTS: usize = 30;

#[tokio::test]
async fn pods_come_and_go_and_no_request_fails() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        under_load(&ns, "the rollout", roll(&ns)).await?;
        under_load(&ns, "the deletion of the only pod", delete(&ns)).await?;
        under_load(&ns, "the crash of the only pod", kill(&ns)).await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=3"]).await?;
        ns.await_serving("minilm", 3).await?;
        under_load(&ns, "the crash of one of three pods", kill(&ns)).await?;
        under_load(&ns, "the way from three pods to one", scale_down(&ns)).await
    })
    .await
}

/// Sees to it that requests go on being answered while something happens.
async fn under_load(
    ns: &TempNamespace,
    what: &str,
    event: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let load = Load::of(CLIENTS, &ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name));
    let ended = event.await;
    let answered = load.stop().await.with_context(|| format!("during {what}"))?;
    ended.with_context(|| format!("during {what}"))?;
    eprintln!("during {what}: {answered} requests, all answered");
    ensure!(answered > 2 * CLIENTS, "only {answered} requests went through: {what} was not watched");
    Ok(())
}

/// What a person does who wants new pods.
async fn roll(ns: &TempNamespace) -> anyhow::Result<()> {
    let old = ns.made_for::<Pod>("minilm").await?;
    ns.kubectl(&["rollout", "restart", "deployment/minilm"]).await?;
    ns.kubectl(&["rollout", "status", "deployment/minilm", "--timeout=90s"]).await?;
    gone(ns, &old).await?;
    ns.await_serving("minilm", 1).await?;
    Ok(())
}

async fn delete(ns: &TempNamespace) -> anyhow::Result<()> {
    let old = ns.made_for::<Pod>("minilm").await?;
    ns.kubectl(&["delete", "pods", "--selector=kembed.dev/service=minilm", "--wait=false"]).await?;
    gone(ns, &old).await?;
    ns.await_serving("minilm", 1).await?;
    Ok(())
}

/// Ends the process of one pod at once, and waits until another one runs in its place.
async fn kill(ns: &TempNamespace) -> anyhow::Result<()> {
    let pods = ns.made_for::<Pod>("minilm").await?;
    let name = pods.first().context("no pod")?;
    let pod = ns.api::<Pod>().get(name).await.context("failed to get the pod")?;
    let before = container::kill(&pod).await?;
    let again = |pod: Option<&Pod>| pod.is_some_and(|pod| container::restarts(pod) > before);
    ns.await_object(name, "the container to start again", again).await?;
    ns.await_serving("minilm", pods.len().try_into().context("more pods than the cluster holds")?).await?;
    Ok(())
}

async fn scale_down(ns: &TempNamespace) -> anyhow::Result<()> {
    ns.kubectl(&["scale", "emb/minilm", "--replicas=1"]).await?;
    let one = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.replicas == Some(1))
    };
    ns.await_object("minilm", "one pod to be left", one).await?;
    ns.await_serving("minilm", 1).await?;
    Ok(())
}

async fn gone(ns: &TempNamespace, pods: &[String]) -> anyhow::Result<()> {
    for pod in pods {
        ns.await_object(pod, "the old pod to go", |pod: Option<&Pod>| pod.is_none()).await?;
    }
    Ok(())
}
