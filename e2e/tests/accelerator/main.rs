//! Services on GPUs, on a node that pretends to have some. What the chart calls the image with CUDA is a stub here, which says of its
//! GPU what it is told to. That is so for the whole installation, and so these tests are a group of their own.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    command::cluster,
    installation::install,
    service::{condition, is_false, is_true, minilm, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::apps::v1::Deployment;
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Of the node: two for pods, one for the successor of one of them, and one to spare.
const GPUS: &str = "4";

/// A service whose pods want a GPU.
fn on_gpu(name: &str, env: &[(&str, &str)]) -> Value {
    let env: Vec<_> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let gpu = json!({"resource": {"name": "nvidia.com/gpu"}});
    with(minilm(name), json!({"accelerator": gpu, "podTemplate": {"env": env}}))
}

#[tokio::test]
async fn a_service_on_gpus_is_ready_by_what_its_pods_have_shown() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let result = on_gpus(&ns).await;
        result.and(cluster(&["gpus", "0"]).await.map(drop))
    })
    .await
}

async fn on_gpus(ns: &TempNamespace) -> anyhow::Result<()> {
    install(&["inferencePod.cudaImage.repository=kembed.test/stub"]).await?;
    cluster(&["gpus", GPUS]).await?;
    ns.apply(on_gpu("right", &[])).await?;
    ns.apply(on_gpu("wrong", &[("STUB_COSINE", "0.5")])).await?;
    ns.apply(with(minilm("on-cpus"), json!({"replicas": 0}))).await?;
    images(ns).await?;
    verified(ns).await.context("whose GPU computes what a CPU does")?;
    refused(ns).await.context("whose GPU computes something else")?;
    // Once, what was taken out of a spec stayed in the pods.
    ns.apply(on_gpu("wrong", &[])).await?;
    ns.await_serving("wrong", 1).await.context("whose GPU is another one now")?;
    without_image(ns).await.context("without an image for GPUs")
}

/// Only who wants a GPU gets the image with CUDA.
async fn images(ns: &TempNamespace) -> anyhow::Result<()> {
    for (name, image) in [("right", "kembed.test/stub:dev"), ("on-cpus", "kembed.test/inference-pod:dev")] {
        let is_made = |deployment: Option<&Deployment>| deployment.is_some();
        let deployment = ns.await_object(name, "a Deployment", is_made).await?;
        let spec = deployment.and_then(|deployment| deployment.spec?.template.spec);
        let used = spec.and_then(|spec| spec.containers.into_iter().next()?.image);
        ensure!(used.as_deref() == Some(image), "{name} runs {used:?}");
    }
    Ok(())
}

async fn verified(ns: &TempNamespace) -> anyhow::Result<()> {
    let service = ns.await_serving("right", 1).await?;
    ensure!(is_true(&service, ConditionType::AcceleratorVerified), "{:?}", service.status);
    let told = condition(&service, ConditionType::AcceleratorVerified).context("it is there")?;
    for words in ["Stub GPU in float16", "0.999800", "of 8 texts"] {
        ensure!(told.message.contains(words), "it does not say {words:?}: {}", told.message);
    }
    let table = ns.kubectl(&["get", "emb", "right", "--output=wide"]).await?;
    ensure!(table.contains("VERIFIED"), "kubectl does not show it: {table}");
    let vectors = ns.kembed.gateway.embed(&format!("http://right.{}.svc", ns.name), "right", &["a"]).await?;
    ensure!(vectors.len() == 1, "{vectors:?}");
    Ok(())
}

async fn refused(ns: &TempNamespace) -> anyhow::Result<()> {
    let inaccurate = |emb: &EmbeddingService| both(emb, Reason::AcceleratorInaccurate);
    let service = ns.await_service("wrong", "the GPU to be found wrong", inaccurate).await?;
    let told = condition(&service, ConditionType::AcceleratorVerified).context("it is there")?;
    ensure!(told.message.contains("Stub GPU computes wrong vectors"), "{}", told.message);
    let status = service.status.unwrap_or_default();
    ensure!(status.ready_replicas == 0 && status.space.is_none(), "{status:?}");
    ns.await_event(Reason::AcceleratorInaccurate.as_str()).await?;
    let url = format!("http://wrong.{}.svc/v1/embeddings", ns.name);
    await_that("a gateway to refuse requests for this reason", async || {
        let answer = ns.kembed.gateway.post(&url, json!({"model": "wrong", "input": "a"})).await?;
        let is_told = answer.body.contains("AcceleratorInaccurate");
        Ok((answer.status == StatusCode::SERVICE_UNAVAILABLE && is_told).then_some(()))
    })
    .await
}

/// A new service says what to configure; what ran before goes on.
async fn without_image(ns: &TempNamespace) -> anyhow::Result<()> {
    install(&["inferencePod.cudaImage.repository="]).await?;
    ns.apply(on_gpu("late", &[])).await?;
    let unavailable = |emb: &EmbeddingService| both(emb, Reason::AcceleratorUnavailable);
    let service = ns.await_service("late", "the missing image to be told", unavailable).await?;
    let told = condition(&service, ConditionType::Ready).context("it is there")?;
    ensure!(told.message.contains("inferencePod.cudaImage.repository"), "{}", told.message);
    let goes_on = |emb: &EmbeddingService| {
        is_true(emb, ConditionType::Ready)
            && is_true(emb, ConditionType::AcceleratorVerified)
            && is_false(emb, ConditionType::Progressing, Reason::AcceleratorUnavailable)
    };
    ns.await_service("right", "its pod to go on", goes_on).await?;
    Ok(())
}

/// Whether both conditions are false for this reason.
fn both(service: &EmbeddingService, reason: Reason) -> bool {
    let types = [ConditionType::Ready, ConditionType::AcceleratorVerified];
    types.into_iter().all(|kind| is_false(service, kind, reason))
}
