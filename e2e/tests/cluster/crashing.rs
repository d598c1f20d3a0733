//! Pods that cannot start, while many ask: no more of them are asked for, those that serve stay, and clients are told why.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    hub::repo::Access,
    load::{Load, Manner},
    service::{condition, is_true, minilm, of_model, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use kube::ResourceExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Clients whose texts take a pod so long that several pods would be needed for them.
const MANY: Manner =
    Manner { clients: 60, retries: 5, pause: Duration::from_millis(20), alike: false, words: 200 };

/// What clients wait who were refused.
const REFUSED: Duration = Duration::from_millis(500);

/// A pod that takes more than so many times what pods took before, or what the shortest start is taken for, is not known to
/// come any more; with room for what a busy machine adds.
const LATE: u32 = 4;
const SHORT: Duration = Duration::from_secs(3);

/// More pods than these clients need.
const MOST: i32 = 20;

/// How long no pod must come or go.
const WATCHED: Duration = Duration::from_secs(15);

/// A model is taken away from the hub while a pod serves it: those that come later cannot load it.
#[tokio::test]
async fn no_pod_is_added_while_the_last_one_ends_again_and_again() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let repo = format!("{}/model", ns.name);
        ns.kembed.hub.create(&repo, Access::Public).await?;
        let small = json!({"resources": {"limits": {"cpu": "250m"}, "requests": {"cpu": "20m"}}});
        let apply = async |least: i32, most: i32| {
            let scaling = json!({"minReplicas": least, "maxReplicas": most, "queueDepth": 4});
            let spec = json!({"scaling": scaling, "podTemplate": small});
            ns.apply(with(of_model("minilm", &format!("hf://{repo}")), spec)).await
        };
        apply(1, 1).await?;
        ns.await_serving("minilm", 1).await?;

        take_away(&ns, &repo).await?;
        apply(2, 2).await?;
        let fails = |emb: &EmbeddingService| is_told(emb, ConditionType::Progressing, "CredentialsMissing");
        ns.await_service("minilm", "the second pod to fail", fails).await?;
        let load = Load::of(MANY, &ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name));
        // From now on as many as the clients need may come.
        apply(2, MOST).await?;
        let blocked = |emb: &EmbeddingService| {
            let told = emb.status.as_ref().and_then(|status| status.scaling.as_ref());
            told.is_some_and(|told| told.reason == "CrashLooping")
        };
        ns.await_service("minilm", "the reason why no pod is added", blocked).await?;
        stays(&ns, 2).await?;
        // A pod with little of a core is now and then too busy for its probe.
        let serves = |emb: &EmbeddingService| {
            let ready = emb.status.as_ref().map(|status| status.ready_replicas);
            ready == Some(1) && is_true(emb, ConditionType::Ready)
        };
        ns.await_service("minilm", "the first pod to serve", serves).await?;

        // Whose model is back gets what it needs.
        ns.kembed.hub.create(&repo, Access::Public).await?;
        let failing = ns.api::<Pod>().list(&Default::default()).await?;
        let failing =
            failing.iter().filter(|pod| !is_ready(pod)).filter_map(|pod| pod.metadata.name.as_deref());
        for pod in failing {
            ns.kubectl(&["delete", "pod", pod, "--wait=false"]).await?;
        }
        let more =
            |emb: &EmbeddingService| emb.status.as_ref().is_some_and(|status| status.ready_replicas > 2);
        ns.await_service("minilm", "pods that the load needs", more).await?;
        let answered = load.stop().await.context("while pods failed")?;
        eprintln!("one pod served {answered} requests while others failed, all answered");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_what_cannot_start_one_pod_is_asked_for_and_clients_are_told_why() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let repo = format!("{}/model", ns.name);
        ns.kembed.hub.create(&repo, Access::Public).await?;
        let starts = asleep(&ns, of_model("minilm", &format!("hf://{repo}"))).await?;
        take_away(&ns, &repo).await?;
        refused(&ns, starts, Reason::CredentialsMissing).await
    })
    .await
}

/// It neither fails nor gets ready: what it is to mount does not come.
#[tokio::test]
async fn of_what_never_gets_ready_one_pod_is_asked_for_and_clients_are_told_why() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.kubectl(&["create", "configmap", "data", "--from-literal=a=b"]).await?;
        let template = json!({
            "volumes": [{"name": "data", "configMap": {"name": "data"}}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        });
        let starts = asleep(&ns, with(minilm("minilm"), json!({"podTemplate": template}))).await?;
        ns.kubectl(&["delete", "configmap", "data"]).await?;
        refused(&ns, starts, Reason::VolumeNotMounted).await
    })
    .await
}

/// Has served, and has no pod any more. Returns how long its pod took to start, at most.
async fn asleep(ns: &TempNamespace, service: Value) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let scaling = json!({"minReplicas": 0, "maxReplicas": MOST, "queueDepth": 1, "scaleToZeroAfter": "1h"});
    ns.apply(with(service, json!({"scaling": scaling, "traffic": {"queueTimeout": "5s"}}))).await?;
    ns.await_serving("minilm", 1).await?;
    let starts = began.elapsed();
    ns.to_zero("minilm").await?;
    Ok(starts)
}

/// Who wakes it is refused, in the end for this reason; and of many who ask then nobody is answered, nor brings more pods.
async fn refused(ns: &TempNamespace, starts: Duration, reason: Reason) -> anyhow::Result<()> {
    let (base, began) = (format!("http://minilm.{}.svc", ns.name), Instant::now());
    let body = json!({"model": "minilm", "input": "hello"});
    await_that("a refusal that says why", || async {
        let answer = ns.kembed.gateway.post(&format!("{base}/v1/embeddings"), body.clone()).await?;
        ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "it answers {answer:?}");
        Ok((answer.json()?["error"]["code"] == reason.as_str()).then_some(()))
    })
    .await?;
    let says_why = |emb: &EmbeddingService| is_told(emb, ConditionType::Ready, reason.as_str());
    ns.await_service("minilm", "the status to say why", says_why).await?;
    // Until then many would be a reason to ask for several pods at once, of a service whose pods are known to come.
    sleep((LATE * starts.max(SHORT)).saturating_sub(began.elapsed())).await;

    let load = Load::of(Manner { retries: 0, pause: REFUSED, ..MANY }, &ns.kembed.gateway, &base);
    stays(ns, 1).await?;
    let outcome = load.end().await?;
    ensure!(outcome.answered == 0 && !outcome.failures.is_empty(), "{} were answered", outcome.answered);
    let other = outcome.failures.iter().find(|failure| !failure.starts_with("503"));
    ensure!(other.is_none(), "not all were refused: {other:?}");
    Ok(())
}

/// So many pods are asked for and are there, now and for a while.
async fn stays(ns: &TempNamespace, pods: usize) -> anyhow::Result<()> {
    for _ in 0..WATCHED.as_secs() {
        let service = ns.api::<EmbeddingService>().get("minilm").await?;
        ensure!(
            usize::try_from(service.spec.replicas)? == pods,
            "{} pods are asked for",
            service.spec.replicas
        );
        let there = ns.api::<Pod>().list(&Default::default()).await.context("failed to list pods")?;
        // One that goes, as the last one of a service that went to sleep may yet, did not come.
        let stays = there.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let stays: Vec<_> = stays.map(ResourceExt::name_any).collect();
        ensure!(stays.len() <= pods, "there are {stays:?}");
        // Not to wait for something, but to see that nothing happens.
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Who asks for it without a token is refused from now on.
async fn take_away(ns: &TempNamespace, repo: &str) -> anyhow::Result<()> {
    ns.kembed.hub.create(repo, Access::Gated { token: "hf_right".to_owned() }).await?;
    Ok(())
}

fn is_told(service: &EmbeddingService, kind: ConditionType, reason: &str) -> bool {
    condition(service, kind)
        .is_some_and(|condition| condition.status == "False" && condition.reason == reason)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
