//! Who orders nodes says that none will come.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    load::{Load, Manner},
    node_pool::NodePool,
    service::{is_false, minilm, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::sleep;

use super::base;

/// Clients that ask again as soon as they have an answer, or nearly: more than one pod can serve.
const SOME: usize = 10;

/// More than any pods that wait in vain could serve.
const MANY: usize = 60;

/// What the service may grow to: no load of these asks for as many at once.
const MOST: i32 = 40;

/// How long no pod must come beyond those that wait in vain.
const WATCHED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn capacity_that_is_refused_is_named_and_no_further_pod_is_made() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        NodePool::with(&ns, async |pool| {
            pool.limit(0).await?;
            let scaling = json!({"scaling": {"minReplicas": 0, "maxReplicas": MOST, "queueDepth": 4}});
            ns.apply(with(with(minilm("minilm"), scaling), pool.spec())).await?;
            first_is_refused(&ns).await.context("with no node at all")?;
            pool.limit(1).await?;
            ns.await_serving("minilm", 1).await?;

            let some = growth_is_refused(&ns).await.context("with one node")?;
            pool.limit(MOST as u32).await?;
            let come =
                |emb: &EmbeddingService| emb.status.as_ref().is_some_and(|status| status.ready_replicas > 1);
            ns.await_service("minilm", "pods on the nodes that may come now", come).await?;
            let answered = some.stop().await.context("while nodes were refused and came")?;
            eprintln!("one node, and then as many as it takes: {answered} requests, all answered");
            Ok(())
        })
        .await
    })
    .await
}

/// The first pod of a service gets no node: requests are refused in the words of the autoscaler of nodes.
async fn first_is_refused(ns: &TempNamespace) -> anyhow::Result<()> {
    let refused =
        |emb: &EmbeddingService| is_false(emb, ConditionType::CapacityAvailable, Reason::CapacityRefused);
    ns.await_service("minilm", "capacity to be refused", refused).await?;
    await_that("a gateway to know that no pod comes", || async {
        let body = json!({"model": "minilm", "input": "hello"});
        let answer = ns.kembed.gateway.post(&format!("{}/v1/embeddings", base(ns)), body).await?;
        let is_told = answer.json()?["error"]["code"] == Reason::CapacityRefused.as_str();
        Ok((answer.status == StatusCode::SERVICE_UNAVAILABLE && is_told).then_some(()))
    })
    .await?;
    let pods = ns.made_for::<Pod>("minilm").await?;
    ensure!(pods.len() == 1, "they are {pods:?}");
    Ok(())
}

/// One pod serves more than it can, and what was asked for beside it has no node. Returns a load that takes more than one pod:
/// without any, those that wait in vain would be given up before long.
async fn growth_is_refused(ns: &TempNamespace) -> anyhow::Result<Load> {
    let some = Load::of(Manner::of(SOME), &ns.kembed.gateway, &base(ns));
    let refused = |emb: &EmbeddingService| {
        emb.spec.replicas > 1 && is_false(emb, ConditionType::CapacityAvailable, Reason::CapacityRefused)
    };
    ns.await_service("minilm", "growth to be refused", refused).await?;
    let many = Load::of(Manner::of(MANY), &ns.kembed.gateway, &base(ns));
    let in_the_way = |emb: &EmbeddingService| {
        let told = emb.status.as_ref().and_then(|status| status.scaling.as_ref());
        told.is_some_and(|told| told.reason == "NoCapacity")
    };
    // What was under way until then may have come.
    let before = ns.await_service("minilm", "no more pods to be asked for", in_the_way).await?.spec.replicas;
    ensure!(before < MOST, "it grew to its most at once");
    // Not to wait for something, but to see that nothing comes.
    sleep(WATCHED).await;
    let after = ns.api::<EmbeddingService>().get("minilm").await?.spec.replicas;
    ensure!(after <= before, "{after} pods are asked for after {before}, and no node comes");
    let answered = many.stop().await?;
    eprintln!("with one node for {after} pods: {answered} requests of many, all answered");
    Ok(some)
}
