//! What all requests depend on goes away and comes back under load. It runs alone, for it disturbs every other
//! test, and after `rbac`: an API server that has just started refuses what it allows a moment later.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    command::{cluster, kubectl},
    container,
    installation::NAMESPACE,
    load::Load,
    service::minilm,
    wait::{DEADLINE, await_that},
    with_temp_ns,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams, runtime::wait::await_condition};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

/// Held by the test that disturbs now.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Each asks again as soon as it has an answer, or nearly.
const CLIENTS: usize = 30;

/// How long a load goes on before a gateway crashes under it.
const BEFORE: Duration = Duration::from_secs(1);

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(5);

#[tokio::test]
async fn gateways_are_replaced_and_no_request_fails() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        serving(&ns).await?;
        let load = load(&ns);
        let gateways = ["--namespace", NAMESPACE, "rollout"];
        kubectl(&[&gateways[..], &["restart", "deployment/kembed-gateway"]].concat()).await?;
        let done =
            kubectl(&[&gateways[..], &["status", "deployment/kembed-gateway", "--timeout=120s"]].concat())
                .await;
        answered(load, "the gateways were replaced").await?;
        done?;
        Ok(())
    })
    .await
}

/// Clients lose what was on its way over connections to it, and no other; by default OpenAI's send a request twice more.
#[tokio::test]
async fn a_gateway_crashes_and_who_tries_again_is_answered() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        serving(&ns).await?;
        let pods = Api::<Pod>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
        let gateways = ListParams::default().labels("app.kubernetes.io/component=gateway");
        let gateway = pods.list(&gateways).await?.items.into_iter().next().context("no gateway")?;
        let load = Load::retrying(2, CLIENTS, &ns.kembed.gateway, &base(&ns));
        // On connections to either of them.
        sleep(BEFORE).await;
        let before = container::kill(&gateway).await?;
        let again = |pod: Option<&Pod>| pod.is_some_and(|pod| container::restarts(pod) > before);
        timeout(DEADLINE, await_condition(pods, &gateway.name_any(), again)).await??;
        ns.await_serving("minilm", 1).await?;
        answered(load, "a gateway crashed").await
    })
    .await
}

#[tokio::test]
async fn the_api_server_is_away_and_no_request_fails() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        serving(&ns).await?;
        let load = load(&ns);
        cluster(&["stop", "apiserver", "KILL"]).await?;
        // Not to wait for something, but to be without it for so long.
        sleep(AWAY).await;
        cluster(&["start", "apiserver"]).await?;
        await_that("the API server", || async { Ok(kubectl(&["get", "--raw", "/readyz"]).await.ok()) })
            .await?;
        answered(load, "the API server was away").await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=2"]).await?;
        ns.await_serving("minilm", 2).await?;
        Ok(())
    })
    .await
}

async fn serving(ns: &TempNamespace) -> anyhow::Result<()> {
    ns.apply(minilm("minilm")).await?;
    ns.await_serving("minilm", 1).await?;
    Ok(())
}

fn load(ns: &TempNamespace) -> Load {
    Load::of(CLIENTS, &ns.kembed.gateway, &base(ns))
}

fn base(ns: &TempNamespace) -> String {
    format!("http://minilm.{}.svc", ns.name)
}

async fn answered(load: Load, when: &str) -> anyhow::Result<()> {
    let answered = load.stop().await.with_context(|| format!("while {when}"))?;
    eprintln!("while {when}: {answered} requests, all answered");
    ensure!(answered > 2 * CLIENTS, "only {answered} requests went through: it was not watched");
    Ok(())
}
