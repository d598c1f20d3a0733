//! `kubectl scale`.

use anyhow::ensure;
use e2e::{
    service::{condition, minilm, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::conditions::{ConditionType, Reason};
use serde_json::json;

#[tokio::test]
async fn a_service_is_scaled_up_off_and_on_again() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=2"]).await?;
        ns.await_serving("minilm", 2).await?;
        // A later apply of the same object, which says nothing of replicas, leaves the count alone.
        ns.apply(minilm("minilm")).await?;
        let kept = ns.await_serving("minilm", 2).await?;
        ensure!(kept.spec.replicas == 2, "an apply without replicas changed them to {}", kept.spec.replicas);

        ns.kubectl(&["scale", "emb/minilm", "--replicas=0"]).await?;
        let off = ns
            .await_service("minilm", "the service to be off", |emb| {
                let ready = condition(emb, ConditionType::Ready);
                ready.is_some_and(|ready| ready.reason == Reason::Off.as_str())
                    && emb.status.as_ref().is_some_and(|status| status.replicas == 0)
            })
            .await?;
        ensure!(
            condition(&off, ConditionType::Ready).is_some_and(|ready| ready.status == "False"),
            "{off:?}"
        );
        let url = format!("http://minilm.{}.svc/v1/embeddings", ns.name);
        // A gateway may hear of it a moment later than who looks at the status, and its last pod is only just going.
        let refused = await_that("a gateway to refuse requests", async || {
            let asked = ns.kembed.gateway.post(&url, json!({"model": "minilm", "input": "hello"}));
            Ok(Some(asked.await?).filter(|answer| !answer.status.is_success()))
        })
        .await?;
        ensure!(refused.status == 503, "a service that is off answers {refused:?}");
        ensure!(refused.body.contains("replicas"), "it does not say how to switch it on: {}", refused.body);

        ns.kubectl(&["scale", "emb/minilm", "--replicas=1"]).await?;
        ns.await_serving("minilm", 1).await?;
        ns.kembed.gateway.embed(&format!("http://minilm.{}", ns.name), "minilm", &["hello"]).await?;
        Ok(())
    })
    .await
}

/// A pod may take as long to end as a request, ten minutes here, which is longer than this test waits. None that was never
/// ready takes that long, be it told to end before its container begins, just then, or while it loads.
#[tokio::test]
async fn pods_that_are_not_wanted_any_more_end_while_they_start() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"traffic": {"requestTimeout": "10m"}}))).await?;
        ns.await_serving("minilm", 1).await?;
        for _ in 0..2 {
            ns.kubectl(&["scale", "emb/minilm", "--replicas=4"]).await?;
            let beginning = |pod: &Pod| {
                let containers =
                    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
                containers
                    .filter_map(|container| container.state.as_ref())
                    .any(|state| state.running.is_some())
            };
            await_that("a second container to run", async || {
                let pods = ns.api::<Pod>().list(&Default::default()).await?;
                Ok((pods.iter().filter(|pod| beginning(pod)).count() > 1).then_some(()))
            })
            .await?;
            ns.kubectl(&["scale", "emb/minilm", "--replicas=1"]).await?;
            await_that("all pods but one to be gone", async || {
                Ok((ns.made_for::<Pod>("minilm").await?.len() == 1).then_some(()))
            })
            .await?;
        }
        Ok(())
    })
    .await
}
