//! The count follows the load where `spec.scaling` is set, and is left to others where it is not.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{
    load::{Load, Manner},
    service::{minilm, with},
    with_temp_ns,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kembed_crds::EmbeddingService;
use serde_json::json;

/// Clients that ask again as soon as they have an answer, or nearly: more than two of the pods can serve.
const MANY: usize = 40;

/// From zero to what the load takes and back, and every request is answered.
#[tokio::test]
async fn pods_come_with_the_load_and_go_with_it() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        // Pods that have little of the node's two cores each, so that it takes few clients to need more of them.
        let small = json!({"limits": {"cpu": "250m"}, "requests": {"cpu": "20m"}});
        let mut scaling =
            json!({"minReplicas": 0, "maxReplicas": 3, "queueDepth": 4, "scaleToZeroAfter": "10s"});
        // Tuned, it may find that it should wait longer before it sleeps.
        scaling["tuning"] = json!("Off");
        let spec = json!({"scaling": scaling, "podTemplate": {"resources": small}});
        ns.apply(with(minilm("minilm"), spec)).await?;
        let base = format!("http://minilm.{}.svc", ns.name);
        // It begins with a pod, whose speed shows with its first request. By then it may sleep again.
        ns.await_count("minilm", 1).await?;
        ns.await_known("minilm").await?;
        ns.wake("minilm").await?;
        ns.await_count("minilm", 0).await?;

        let began = Instant::now();
        // Where the API server is slow, nobody can be woken and a gateway says so: clients ask again.
        let many = Manner { retries: 5, ..Manner::of(MANY) };
        let load = Load::of(many, &ns.kembed.gateway, &base);
        ns.await_count("minilm", 3).await?;
        let up = began.elapsed();
        let many = load.stop().await.context("while pods came")?;

        // A pod has these few times its quarter of a core over, however busy the node is.
        let seldom = Manner { pause: Duration::from_secs(2), retries: 5, ..Manner::of(1) };
        let load = Load::of(seldom, &ns.kembed.gateway, &base);
        let began = Instant::now();
        // The most that was needed in the last minute stays. What comes once more as it did before is expected: the other two may
        // be asked for again before they are gone.
        ns.await_service("minilm", "one pod to be enough", |emb| emb.spec.replicas == 1).await?;
        let down = began.elapsed();
        let few = load.stop().await.context("while pods went")?;
        ns.await_count("minilm", 0).await?;
        eprintln!(
            "0 -> 3 in {:.1} s, 3 -> 1 in {:.1} s, {} requests, all answered",
            up.as_secs_f64(),
            down.as_secs_f64(),
            many + few
        );
        let says_why = |emb: &EmbeddingService| {
            let scaling = emb.status.as_ref().and_then(|status| status.scaling.as_ref());
            scaling.is_some_and(|scaling| scaling.reason == "Idle")
        };
        ns.await_service("minilm", "status.scaling to say why it sleeps", says_why).await?;
        ns.await_event("Activated: spec.replicas 0 -> 1").await?;
        ns.await_event("Idle: spec.replicas 1 -> 0").await
    })
    .await
}

#[tokio::test]
async fn a_count_out_of_its_bounds_is_brought_in() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 1, "maxReplicas": 2}}))).await?;
        ns.await_count("minilm", 1).await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=5"]).await?;
        let bounded = |emb: &EmbeddingService| emb.spec.replicas <= 2;
        ns.await_service("minilm", "the count to be within its bounds", bounded).await?;
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 2, "maxReplicas": 2}}))).await?;
        ns.await_count("minilm", 2).await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=0"]).await?;
        ns.await_count("minilm", 2).await?;
        Ok(())
    })
    .await
}

/// An autoscaler of somebody else's, which reads and writes the scale subresource. There are no metrics in this cluster; its
/// minimum it keeps without.
#[tokio::test]
async fn without_scaling_the_count_is_an_hpas() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        let target =
            json!({"apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService", "name": "minilm"});
        let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
        ns.apply(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "minilm"},
            "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": cpu}]},
        }))
        .await?;
        let scaled = ns.await_serving("minilm", 2).await?;
        ensure!(scaled.status.is_some_and(|status| status.scaling.is_none()), "it has a reason of ours");
        let sees = |hpa: Option<&HorizontalPodAutoscaler>| {
            let status = hpa.and_then(|hpa| hpa.status.as_ref());
            status.is_some_and(|status| status.current_replicas == Some(2))
        };
        ns.await_object("minilm", "the HPA to see two pods", sees).await?;
        Ok(())
    })
    .await
}
