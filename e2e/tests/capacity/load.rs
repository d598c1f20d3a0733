//! The load of a service brings nodes, and takes them away.

use std::time::Instant;

use anyhow::Context;
use e2e::{
    load::{Load, Manner},
    node_pool::NodePool,
    service::{minilm, with},
    with_temp_ns,
};
use kembed_crds::EmbeddingService;
use serde_json::json;

use super::{await_nodes, base};

/// Clients that ask again as soon as they have an answer, or nearly: more than two pods can serve.
const MANY: usize = 40;

#[tokio::test]
async fn nodes_come_with_the_load_and_go_with_it() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        NodePool::with(&ns, async |pool| {
            let mut scaling =
                json!({"minReplicas": 0, "maxReplicas": 3, "queueDepth": 4, "scaleToZeroAfter": "5s"});
            // Tuned, it may find that it should wait longer before it sleeps.
            scaling["tuning"] = json!("Off");
            ns.apply(with(with(minilm("minilm"), json!({"scaling": scaling})), pool.spec())).await?;
            // Its first pod waits for a node, proves the model, and is asked once, so that its speed is known.
            ns.await_count("minilm", 1).await?;
            ns.await_known("minilm").await?;
            ns.wake("minilm").await?;
            ns.to_zero("minilm").await?;
            await_nodes(&pool, 0).await?;

            let began = Instant::now();
            // The first may be refused where the API server is slow; who is sends again, as clients do.
            let many = Manner { retries: 4, ..Manner::of(MANY) };
            let many = Load::of(many, &ns.kembed.gateway, &base(&ns));
            ns.await_count("minilm", 3).await?;
            await_nodes(&pool, 3).await?;
            let up = began.elapsed();
            let many = many.stop().await.context("while nodes came")?;

            let began = Instant::now();
            // Step by step: for a minute and more pods stand by, in case somebody comes back.
            let fewer = |emb: &EmbeddingService| emb.spec.replicas < 3;
            ns.await_service("minilm", "fewer pods, for nobody asks", fewer).await?;
            ns.await_count("minilm", 0).await?;
            await_nodes(&pool, 0).await?;
            eprintln!(
                "0 -> 3 pods and nodes in {:.1} s, 3 -> 0 in {:.1} s, {many} requests, all answered",
                up.as_secs_f64(),
                began.elapsed().as_secs_f64()
            );
            Ok(())
        })
        .await
    })
    .await
}
