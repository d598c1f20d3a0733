//! What happens to pods, gateways and the API server while requests come: each ends when all is as it was, or as it
//! was meant to become.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kembed_queue::report::INTERNAL_PORT;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    TempNamespace,
    command::{cluster, kubectl, run},
    container,
    installation::{NAMESPACE, gateways},
    wait::{self, await_that},
};

/// The table of what is cut in the network.
const CUT: &str = "kembed-test";

/// Replaces the pods of a service, as a person does who wants new ones.
///
/// # Errors
/// If that does not come about.
pub async fn roll(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    let old = ns.made_for::<Pod>(name).await?;
    let deployment = format!("deployment/{name}");
    ns.kubectl(&["rollout", "restart", &deployment]).await?;
    ns.kubectl(&["rollout", "status", &deployment, "--timeout=240s"]).await?;
    gone(ns, &old).await?;
    as_many(ns, name, old.len()).await
}

/// Deletes all pods of a service at once.
///
/// # Errors
/// If others do not come.
pub async fn delete(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    let old = ns.made_for::<Pod>(name).await?;
    let mine = format!("--selector=kembed.dev/service={name}");
    ns.kubectl(&["delete", "pods", &mine, "--wait=false"]).await?;
    gone(ns, &old).await?;
    as_many(ns, name, old.len()).await
}

/// Evicts one pod of a service, as `kubectl drain` does to each on a node.
///
/// # Errors
/// If it may not go, or another does not come.
pub async fn evict(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    let old = ns.made_for::<Pod>(name).await?;
    let one = old.first().context("no pod")?;
    let pods = ns.api::<Pod>();
    // As `kubectl drain` does: whoever counts which pods may go may be a moment behind, and says 429.
    await_that("a pod to be evicted", async || {
        pods.evict(one, &Default::default()).await.map(Some).context("failed to evict a pod")
    })
    .await?;
    gone(ns, &old[..1]).await?;
    as_many(ns, name, old.len()).await
}

/// Ends the process of one pod at once, and waits until another one runs in its place.
///
/// # Errors
/// If none does.
pub async fn kill(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    let pods = ns.made_for::<Pod>(name).await?;
    let one = pods.first().context("no pod")?;
    let pod = ns.api::<Pod>().get(one).await.context("failed to get the pod")?;
    let before = container::kill(&pod).await?;
    let again = |pod: Option<&Pod>| pod.is_some_and(|pod| container::restarts(pod) > before);
    ns.await_object(one, "the container to start again", again).await?;
    as_many(ns, name, pods.len()).await
}

/// Leaves a service one pod.
///
/// # Errors
/// If the others do not go.
pub async fn to_one(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    ns.kubectl(&["scale", &format!("emb/{name}"), "--replicas=1"]).await?;
    let one = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.replicas == Some(1))
    };
    ns.await_object(name, "one pod to be left", one).await?;
    as_many(ns, name, 1).await
}

/// Replaces every gateway.
///
/// # Errors
/// If that does not come about.
pub async fn roll_gateways() -> anyhow::Result<()> {
    replace("deployment/kembed-gateway").await
}

/// Replaces every controller.
///
/// # Errors
/// If that does not come about.
pub async fn roll_controllers() -> anyhow::Result<()> {
    replace("deployment/kembed-controller").await
}

/// Replaces the pods of one of kembed's Deployments.
async fn replace(deployment: &str) -> anyhow::Result<()> {
    let rollout = ["--namespace", NAMESPACE, "rollout"];
    kubectl(&[&rollout[..], &["restart", deployment]].concat()).await?;
    kubectl(&[&rollout[..], &["status", deployment, "--timeout=240s"]].concat()).await?;
    Ok(())
}

/// Ends the process of one gateway at once, and waits until it runs again.
///
/// # Errors
/// If it does not.
pub async fn kill_gateway(ns: &TempNamespace) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
    // One that is being replaced is there for a while yet, and does not start again.
    let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let gateway = pods.list(&gateways()).await?.items.into_iter().find(stays).context("no gateway")?;
    let before = container::kill(&gateway).await?;
    let again = |pod: Option<&Pod>| pod.is_some_and(|pod| container::restarts(pod) > before);
    wait::await_object(pods, &gateway.name_any(), "the gateway to start again", again).await?;
    Ok(())
}

/// Ends the API server at once, starts it again after so long, and waits until Kubernetes makes pods again.
///
/// # Errors
/// If it does not come back.
pub async fn api_server_away(ns: &TempNamespace, away: Duration) -> anyhow::Result<()> {
    cluster(&["stop", "apiserver", "KILL"]).await?;
    // Not to wait for something, but to be without it for so long.
    sleep(away).await;
    cluster(&["start", "apiserver"]).await?;
    await_that("the API server", || async { Ok(kubectl(&["get", "--raw", "/readyz"]).await.ok()) }).await?;
    pods_are_made(ns).await
}

/// Waits until a pod of a Deployment runs: while the API server was away, each part of Kubernetes came to look for it only
/// once a minute or so.
async fn pods_are_made(ns: &TempNamespace) -> anyhow::Result<()> {
    const NAME: &str = "awake";
    let labels = json!({"app": NAME});
    let container = json!({
        "name": NAME, "image": "cluster.test/pause:1",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let context =
        json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
    ns.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"securityContext": context, "containers": [container]},
        }},
    }))
    .await?;
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.available_replicas == Some(1))
    };
    ns.await_object(NAME, "Kubernetes to make pods again", available).await?;
    Ok(())
}

/// Has nothing pass between this pod and the port on which gateways tell their load, while `meanwhile` goes on. Connections
/// are not closed: nobody hears any more.
///
/// # Errors
/// Those of `meanwhile`, or if the network of the test cluster cannot be changed.
pub async fn gateways_unheard<T>(
    by: &Pod,
    meanwhile: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let address = by.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let address = address.context("the pod has no address")?;
    let rules = format!(
        "table ip {CUT} {{
            chain cut {{
                type filter hook forward priority 0
                ip saddr {address} tcp dport {INTERNAL_PORT} drop
                ip daddr {address} tcp sport {INTERNAL_PORT} drop
            }}
        }}
        "
    );
    run("nft", &["--file", "-"], &rules).await?;
    let result = meanwhile.await;
    run("nft", &["delete", "table", "ip", CUT], "").await?;
    result
}

async fn gone(ns: &TempNamespace, pods: &[String]) -> anyhow::Result<()> {
    for pod in pods {
        ns.await_object(pod, "the old pod to go", |pod: Option<&Pod>| pod.is_none()).await?;
    }
    Ok(())
}

async fn as_many(ns: &TempNamespace, name: &str, pods: usize) -> anyhow::Result<()> {
    let pods = pods.try_into().context("more pods than the cluster holds")?;
    ns.await_serving(name, pods).await?;
    Ok(())
}
