//! What stands in the way is told by a condition, in words that say what to do, and by `Ready` too.

use anyhow::ensure;
use e2e::{
    TempNamespace,
    command::cluster,
    hub::repo::Access,
    service::{condition, is_false, minilm, of_model, with},
    wait::await_that,
    with_temp_ns,
};
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use serde_json::json;

/// Waits until both the condition of this type and `Ready` are false for this reason, and checks that the message
/// holds `words`.
pub(crate) async fn fails(
    ns: &TempNamespace,
    name: &str,
    (kind, reason, words): (ConditionType, Reason, &str),
) -> anyhow::Result<EmbeddingService> {
    let both =
        |emb: &EmbeddingService| [kind, ConditionType::Ready].iter().all(|&kind| is_false(emb, kind, reason));
    let service = ns.await_service(name, &format!("{name} to be {reason:?}"), both).await?;
    let message = condition(&service, kind).map(|condition| condition.message.clone()).unwrap_or_default();
    ensure!(message.contains(words), "{kind:?} of {name} does not speak of {words:?}: {message:?}");
    // It is published after the status.
    ns.await_event(reason.as_str()).await?;
    Ok(service)
}

#[tokio::test]
async fn a_model_that_does_not_exist() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let lost = (ConditionType::ModelAvailable, Reason::ModelNotFound);
        let repo = format!("{}/public", ns.name);
        ns.kembed.hub.create(&repo, Access::Public).await?;
        ns.apply(of_model("revision", &format!("hf://{repo}@no-such-branch"))).await?;
        let file = json!({"model": {"file": "onnx/none.onnx"}});
        ns.apply(with(of_model("file", &format!("hf://{repo}")), file)).await?;
        fails(&ns, "revision", (lost.0, lost.1, "no-such-branch")).await?;
        fails(&ns, "file", (lost.0, lost.1, "onnx/none.onnx")).await?;
        // Corrected, it serves: nothing was recorded yet that could stand in the way.
        ns.apply(of_model("revision", &format!("hf://{repo}@main"))).await?;
        ns.await_serving("revision", 1).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn credentials() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let repo = format!("{}/gated", ns.name);
        ns.kembed.hub.create(&repo, Access::Gated { token: "hf_right".to_owned() }).await?;
        let uri = format!("hf://{repo}");
        let named = json!({"model": {"credentials": {"secretName": "hf-token"}}});
        let available = ConditionType::ModelAvailable;

        ns.apply(of_model("nothing-given", &uri)).await?;
        ns.apply(with(of_model("gated", &uri), named)).await?;
        fails(&ns, "nothing-given", (available, Reason::CredentialsMissing, "gated")).await?;
        fails(&ns, "gated", (available, Reason::CredentialsNotFound, "hf-token")).await?;

        ns.kubectl(&["create", "secret", "generic", "hf-token", "--from-literal=HF_TOKEN=hf_other"]).await?;
        let service = fails(&ns, "gated", (available, Reason::CredentialsRefused, "gated")).await?;
        ensure!(!format!("{service:?}").contains("hf_other"), "the token stands in the object: {service:?}");

        let right = json!({"stringData": {"HF_TOKEN": "hf_right"}}).to_string();
        ns.kubectl(&["patch", "secret", "hf-token", "--patch", &right]).await?;
        // The kubelet renews mounted secrets within a minute or so; a new pod has the new one at once.
        ns.kubectl(&["delete", "pods", "--selector=kembed.dev/service=gated", "--wait=false"]).await?;
        ns.await_serving("gated", 1).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_gpu_that_no_node_has() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let gpu = json!({
            "accelerator": {"resource": {"name": "nvidia.com/gpu"}},
            "traffic": {"queueTimeout": "3s"},
        });
        ns.apply(with(minilm("minilm"), gpu)).await?;
        let short = (ConditionType::CapacityAvailable, Reason::Unschedulable, "nvidia.com/gpu");
        fails(&ns, "minilm", short).await?;
        no_gpu_no_answer(&ns).await?;

        cluster(&["gpus", "1"]).await?;
        // A node has it now, and so the pod starts; but it can use CPUs only.
        let unusable = (ConditionType::AcceleratorVerified, Reason::AcceleratorUnavailable, "nvidia.com/gpu");
        let failed = fails(&ns, "minilm", unusable).await;
        let taken_back = cluster(&["gpus", "0"]).await;
        let service = failed?;
        taken_back?;
        let capacity = condition(&service, ConditionType::CapacityAvailable);
        ensure!(
            capacity.is_some_and(|capacity| capacity.status == "True"),
            "a pod runs, and yet: {capacity:?}"
        );
        Ok(())
    })
    .await
}

/// What does not wait is refused at once, and a request for vectors once it has waited for a node.
async fn no_gpu_no_answer(ns: &TempNamespace) -> anyhow::Result<()> {
    let (gateway, base) = (&ns.kembed.gateway, format!("http://minilm.{}", ns.name));
    // A gateway hears of the reason a moment later than who looks at the status.
    await_that("a gateway to refuse a look for this reason", async || {
        let refused = gateway.get(&format!("{base}/info")).await?;
        Ok((refused.status == 503 && refused.body.contains("Unschedulable")).then_some(()))
    })
    .await?;
    let waited = await_that("a gateway to refuse who waited for this reason", async || {
        let body = json!({"model": "minilm", "input": "hello"});
        let waited = gateway.post(&format!("{base}/v1/embeddings"), body).await?;
        ensure!(waited.status == 503, "{waited:?}");
        Ok((waited.json()?["error"]["code"] == "Unschedulable").then_some(waited))
    })
    .await?;
    let error = &waited.json()?["error"];
    let message = error["message"].as_str().unwrap_or_default();
    let told = message.split("waited ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    ensure!(message.contains("nvidia.com/gpu"), "it does not name what is short: {error}");
    ensure!(told.is_some_and(|seconds| seconds >= 3.), "it does not say how long it waited: {error}");
    let again = (waited.header("x-should-retry"), waited.header("retry-after"));
    ensure!(again == (Some("true"), Some("5")), "whether to come again: {again:?}");
    Ok(())
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(of_model("minilm", "image://kembed.test/no-such-model:1")).await?;
        let pull = (ConditionType::Progressing, Reason::ImagePullFailed, "kembed.test/no-such-model:1");
        fails(&ns, "minilm", pull).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn too_little_memory() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let memory = json!({"podTemplate": {"resources": {"limits": {"memory": "48Mi"}, "requests": {"memory": "48Mi"}}}});
        ns.apply(with(minilm("minilm"), memory)).await?;
        fails(&ns, "minilm", (ConditionType::Progressing, Reason::OutOfMemory, "memory limit")).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_that_the_api_server_refuses() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let mount = json!({"podTemplate": {"volumeMounts": [{"name": "nowhere", "mountPath": "/data"}]}});
        ns.apply(with(minilm("minilm"), mount)).await?;
        let rejected = |emb: &EmbeddingService| is_false(emb, ConditionType::Ready, Reason::PodRejected);
        let service = ns.await_service("minilm", "the refusal to be told", rejected).await?;
        let message = condition(&service, ConditionType::Ready).map(|ready| ready.message.as_str());
        ensure!(
            message.is_some_and(|text| text.contains("nowhere")),
            "it does not say what is wrong: {message:?}"
        );
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        Ok(())
    })
    .await
}
