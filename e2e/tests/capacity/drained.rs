//! A node goes though the only pod of a service is on it.

use anyhow::Context;
use e2e::{
    TempNamespace,
    command::kubectl,
    load::Load,
    node_pool::NodePool,
    service::{minilm, with},
    wait::await_that,
    with_temp_ns,
};
use serde_json::json;

use super::{await_nodes, base};

/// Neither a PodDisruptionBudget nor what keeps Karpenter from a pod that starts holds a node for ever.
#[tokio::test]
async fn the_only_pod_does_not_keep_its_node() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        NodePool::with(&ns, async |pool| {
            // As the default, but for how long that is.
            let shield = json!({"podTemplate": {"annotations": {"karpenter.sh/do-not-disrupt": "15s"}}});
            ns.apply(with(with(minilm("minilm"), shield), pool.spec())).await?;
            ns.await_serving("minilm", 1).await?;
            let load = Load::start(&ns.kembed.gateway, &base(&ns));

            let node = only_node(&pool).await?;
            let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"];
            kubectl(&drain).await.context("failed to drain the node of the only pod")?;
            elsewhere(&ns, &pool, &node).await?;

            // Karpenter's own way: it evicts what is on a node before it lets the node go.
            let node = only_node(&pool).await?;
            kubectl(&["delete", "node", &node, "--timeout=240s"])
                .await
                .context("Karpenter keeps the node")?;
            elsewhere(&ns, &pool, &node).await?;
            let answered = load.stop().await.context("while nodes went")?;
            eprintln!("two nodes went with the only pod on them: {answered} requests, all answered");
            Ok(())
        })
        .await
    })
    .await
}

async fn only_node(pool: &NodePool) -> anyhow::Result<String> {
    await_nodes(pool, 1).await?.pop().context("no node")
}

/// The service is served from another node alone, and the old one is gone: nothing is on it any more.
async fn elsewhere(ns: &TempNamespace, pool: &NodePool, old: &str) -> anyhow::Result<()> {
    await_that("the old node to go", || async {
        Ok((!pool.nodes().await?.iter().any(|node| node == old)).then_some(()))
    })
    .await?;
    ns.await_serving("minilm", 1).await?;
    await_nodes(pool, 1).await?;
    Ok(())
}
