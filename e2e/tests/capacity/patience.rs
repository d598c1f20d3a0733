//! A node takes longer than a client waits.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{
    node_pool::NodePool,
    service::{is_false, minilm, with},
    with_temp_ns,
};
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use serde_json::json;
use tokio::{join, time::timeout};

use super::await_nodes;

/// How long a client waits for its vector.
const CLIENT: Duration = Duration::from_secs(30);

/// How long a node takes.
const NODE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn who_gives_up_still_gets_a_node_and_a_pod() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        NodePool::with(&ns, async |pool| {
            // It would be at zero again after a second in which nobody asks.
            let scaling = json!({"scaling": {"minReplicas": 0, "scaleToZeroAfter": "1s"}});
            ns.apply(with(with(minilm("minilm"), scaling), pool.spec())).await?;
            ns.await_count("minilm", 1).await?;
            ns.await_known("minilm").await?;
            ns.to_zero("minilm").await?;
            await_nodes(&pool, 0).await?;
            pool.buy_after(NODE).await?;

            let began = Instant::now();
            let ordered = |emb: &EmbeddingService| {
                emb.spec.replicas == 1 && is_false(emb, ConditionType::CapacityAvailable, Reason::NodeOrdered)
            };
            let on_its_way = ns.await_service("minilm", "a node to be on its way", ordered);
            let (asked, on_its_way) = join!(timeout(CLIENT, ns.wake("minilm")), on_its_way);
            ensure!(asked.is_err(), "there is no node, and it was answered: {asked:?}");
            on_its_way?;
            // Nobody asks any more, and still a pod comes, when there is a node.
            ns.await_count("minilm", 1).await?;
            let took = began.elapsed();
            ensure!(took >= NODE, "the pod was there before the node");
            eprintln!("who left after {CLIENT:?} has a pod after {:.1} s", took.as_secs_f64());
            Ok(())
        })
        .await
    })
    .await
}
