//! The release itself is upgraded, removed and installed again while a service runs. The last of all tests, and alone.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    command::helm,
    installation::{NAMESPACE, RELEASE, install},
    load::Load,
    service::minilm,
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, networking::v1::NetworkPolicy};
use kembed_crds::EmbeddingService;
use kube::{Api, ResourceExt};

#[tokio::test]
async fn services_outlive_the_release() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        upgrade(&ns).await.context("during helm upgrade")?;
        uninstall(&ns).await.context("during helm uninstall")?;
        reinstall(&ns).await.context("when installed again")
    })
    .await
}

/// A new version rolls every program and every inference pod, and no request fails.
async fn upgrade(ns: &TempNamespace) -> anyhow::Result<()> {
    let load = Load::start(&ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name));
    let rolled = "2026-01-01";
    install(&[
        &format!("controller.podAnnotations.rolled={rolled}"),
        &format!("gateway.podAnnotations.rolled={rolled}"),
        "inferencePod.env[1].name=ROLLED",
        &format!("inferencePod.env[1].value={rolled}"),
        "networkPolicy.enabled=false",
    ])
    .await?;
    let new = |pod: &Pod| {
        let env = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.env.as_ref());
        env.is_some_and(|env| {
            env.iter().any(|env| env.name == "ROLLED" && env.value.as_deref() == Some(rolled))
        })
    };
    await_that("pods of the new version alone", || async {
        let pods = ns.api::<Pod>().list(&Default::default()).await.context("failed to list pods")?;
        Ok((pods.items.len() == 1 && pods.iter().all(new)).then_some(()))
    })
    .await?;
    await_that("the service's NetworkPolicy to go, for they are switched off", async || {
        Ok(ns.made_for::<NetworkPolicy>("minilm").await?.is_empty().then_some(()))
    })
    .await?;
    ns.await_serving("minilm", 1).await?;
    load.stop_after(10).await?;
    Ok(())
}

/// What users made stays, and pods go on.
async fn uninstall(ns: &TempNamespace) -> anyhow::Result<()> {
    let pods = ns.made_for::<Pod>("minilm").await?;
    helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]).await?;
    let deployments = Api::<Deployment>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
    ensure!(deployments.list(&Default::default()).await?.items.is_empty(), "programs are left");
    let services = ns.api::<EmbeddingService>().list(&Default::default()).await?;
    ensure!(services.iter().map(ResourceExt::name_any).eq(["minilm"]), "the EmbeddingService is gone");
    ensure!(ns.made_for::<Pod>("minilm").await? == pods, "its pods were touched");
    // Nobody is there to see these; the next version must.
    ns.kubectl(&["scale", "emb/minilm", "--replicas=2"]).await?;
    ns.apply(minilm("made-meanwhile")).await?;
    Ok(())
}

/// A new release picks up what is there.
async fn reinstall(ns: &TempNamespace) -> anyhow::Result<()> {
    install(&[]).await?;
    ns.await_serving("minilm", 2).await?;
    ns.await_serving("made-meanwhile", 1).await?;
    ensure!(ns.made_for::<NetworkPolicy>("minilm").await?.len() == 1, "it has no NetworkPolicy again");
    // The gateway's Service is a new one, with another address.
    let (body, url) = (r#"{"input": "hello"}"#, format!("http://minilm.{}.svc/v1/embeddings", ns.name));
    let answer = ns.curl(&["--fail-with-body", "--json", body, &url]).await?;
    ensure!(e2e::client::vectors(&answer)?.len() == 1, "not one vector: {answer}");
    Ok(())
}
