//! Nodes come with the pods that need them and go with them: Karpenter buys them, though they only pretend to be there. These
//! tests are a group of their own, for while Karpenter runs it has a word on every pod that finds no node.

mod drained;
mod load;
mod patience;
mod refused;

use e2e::{TempNamespace, node_pool::NodePool, wait::await_that};
use kembed_crds::EmbeddingService;

/// Where requests go.
fn base(ns: &TempNamespace) -> String {
    format!("http://minilm.{}.svc", ns.name)
}

/// Waits until a service has so many pods, all of which serve.
async fn await_count(ns: &TempNamespace, count: i32) -> anyhow::Result<EmbeddingService> {
    let has = |emb: &EmbeddingService| {
        let ready = emb.status.as_ref().map(|status| status.ready_replicas);
        emb.spec.replicas == count && ready == Some(count)
    };
    ns.await_service("minilm", &format!("{count} pods that serve"), has).await
}

async fn await_nodes(pool: &NodePool, count: usize) -> anyhow::Result<Vec<String>> {
    await_that(&format!("{count} nodes"), || async {
        let nodes = pool.nodes().await?;
        Ok((nodes.len() == count).then_some(nodes))
    })
    .await
}
