//! `kubectl delete`.

use anyhow::ensure;
use e2e::{
    TempNamespace,
    service::{minilm, recorded_space, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde_json::json;

/// `Kind/name` of everything there is for the service.
async fn made(ns: &TempNamespace) -> anyhow::Result<Vec<String>> {
    let of = |kind: &str, names: Vec<String>| {
        names.into_iter().map(|name| format!("{kind}/{name}")).collect::<Vec<_>>()
    };
    Ok([
        of("Deployment", ns.made_for::<Deployment>("minilm").await?),
        of("Service", ns.made_for::<Service>("minilm").await?),
        of("ConfigMap", ns.made_for::<ConfigMap>("minilm").await?),
        of("PodDisruptionBudget", ns.made_for::<PodDisruptionBudget>("minilm").await?),
        of("NetworkPolicy", ns.made_for::<NetworkPolicy>("minilm").await?),
        of("ReplicaSet", ns.made_for::<ReplicaSet>("minilm").await?),
        of("Pod", ns.made_for::<Pod>("minilm").await?),
    ]
    .concat())
}

#[tokio::test]
async fn nothing_is_left_of_a_deleted_service() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        // The ConfigMap follows the recorded space.
        let seven = async || Some(made(&ns).await?).filter(|there| there.len() == 7).map(Ok).transpose();
        let there = await_that("five objects, a ReplicaSet and a pod", seven).await?;
        for expected in [
            "Deployment/minilm",
            "Service/minilm",
            "ConfigMap/minilm-space",
            "PodDisruptionBudget/minilm",
            "NetworkPolicy/minilm",
        ] {
            ensure!(there.iter().any(|object| object == expected), "no {expected} among {there:?}");
        }

        ns.kubectl(&["delete", "emb/minilm"]).await?;
        await_that("everything to go", || async { Ok(made(&ns).await?.is_empty().then_some(())) }).await?;
        let url = format!("http://minilm.{}.svc/?content=hello", ns.name);
        await_that("the gateway to forget the service", || async {
            Ok((ns.kembed.gateway.get(&url).await?.status == 404).then_some(()))
        })
        .await
    })
    .await
}

/// The pods of the one before still answer while the garbage collector is on its way.
#[tokio::test]
async fn a_service_made_anew_has_a_space_of_its_own() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        let before = recorded_space(&ns.await_serving("minilm", 1).await?)?;
        ns.kubectl(&["delete", "emb/minilm"]).await?;
        ns.apply(with(minilm("minilm"), json!({"model": {"pooling": "Cls"}}))).await?;
        let anew = recorded_space(&ns.await_serving("minilm", 1).await?)?;
        ensure!(anew.digest != before.digest, "the first token's vectors have the space of the mean's");
        Ok(())
    })
    .await
}
