//! A model on a volume that others fill, and what becomes of its vectors if they change it.

use anyhow::ensure;
use e2e::{
    TempNamespace,
    command::{kubectl, kubectl_with},
    golden::{self, assert_right},
    service::{condition, is_false, of_model, with},
    wait::await_that,
    with_temp_ns,
};
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use reqwest::StatusCode;
use serde_json::json;

/// A folder of the node, as there is no storage that could be asked for a volume.
fn folder(ns: &TempNamespace) -> String {
    format!("/var/lib/kubelet/{}", ns.name)
}

/// Offers the folder as a volume, for this namespace alone.
async fn offer(ns: &TempNamespace) -> anyhow::Result<()> {
    let (name, size) = (&ns.name, json!({"storage": "1Gi"}));
    ns.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": size, "accessModes": ["ReadOnlyMany"], "storageClassName": name,
            "hostPath": {"path": folder(ns), "type": "DirectoryOrCreate"},
        },
    }))
    .await?;
    ns.apply(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": name, "resources": {"requests": size}},
    }))
    .await
}

/// Runs a script as root, which needs a namespace that is not as strict as a test's. The model is in /image.
async fn on_the_volume(ns: &TempNamespace, script: &str) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": ns.name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "fill", "image": "cluster.test/busybox:1", "args": ["-ec", script],
                "resources": {"requests": {"cpu": "20m"}},
                "volumeMounts": [{"name": "volume", "mountPath": "/volume"}, {"name": "image", "mountPath": "/image"}],
            }],
            "volumes": [
                {"name": "volume", "hostPath": {"path": folder(ns), "type": "DirectoryOrCreate"}},
                {"name": "image", "image": {"reference": "kembed.test/minilm:1", "pullPolicy": "IfNotPresent"}},
            ],
        },
    });
    kubectl_with(&["apply", "--filename=-"], &pod.to_string()).await?;
    let pod = format!("pod/{}", ns.name);
    let done = "--for=jsonpath={.status.phase}=Succeeded";
    kubectl(&["--namespace=default", "wait", done, "--timeout=240s", &pod]).await?;
    kubectl(&["--namespace=default", "delete", &pod, "--now"]).await?;
    Ok(())
}

/// Waits until the space is inconsistent for this reason, the service not ready for it either, and requests are refused.
async fn differs(ns: &TempNamespace, name: &str, reason: Reason, words: &str) -> anyhow::Result<()> {
    let kinds = [ConditionType::SpaceConsistent, ConditionType::Ready];
    let both = |emb: &EmbeddingService| kinds.iter().all(|&kind| is_false(emb, kind, reason));
    let service = ns.await_service(name, &format!("{name} to be {reason:?}"), both).await?;
    let message = condition(&service, kinds[0]).map(|condition| condition.message.as_str());
    ensure!(message.is_some_and(|text| text.contains(words)), "it does not speak of {words}: {message:?}");
    // A gateway hears of it a moment later.
    let url = format!("http://{name}.{}/?content=hello", ns.name);
    await_that("a gateway to refuse requests for this reason", async || {
        let answer = ns.kembed.gateway.get(&url).await?;
        let is_told = answer.body.contains(reason.as_str());
        Ok((answer.status == StatusCode::SERVICE_UNAVAILABLE && is_told).then_some(()))
    })
    .await
}

#[tokio::test]
async fn its_files_are_served_while_they_stay_the_same() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let result = on_a_claim(&ns).await;
        let volume = ["delete", "persistentvolume", &ns.name, "--wait=false", "--ignore-not-found"];
        let ended = kubectl(&volume).await;
        result.and(ended.map(drop))
    })
    .await
}

async fn on_a_claim(ns: &TempNamespace) -> anyhow::Result<()> {
    on_the_volume(ns, "cp -r /image /volume/minilm && chmod -R a+rX /volume").await?;
    offer(ns).await?;
    ns.apply(of_model("minilm", "pvc://models/minilm")).await?;
    // Another service of the same files, whose owner demands others.
    let wrong = format!("sha256:{}", "0".repeat(64));
    let pinned = json!({"model": {"digest": wrong}});
    ns.apply(with(of_model("pinned", "pvc://models/minilm"), pinned)).await?;

    ns.await_serving("minilm", 1).await?;
    let golden = &golden::all()?[0];
    let base = format!("http://minilm.{}.svc", ns.name);
    let vectors = ns.kembed.gateway.embed(&base, "minilm", &[&golden.text]).await?;
    ensure!(vectors.len() == 1, "{} vectors", vectors.len());
    assert_right(golden, &vectors[0]);
    differs(ns, "pinned", Reason::PinMismatch, &wrong).await?;

    // Somebody changes how vectors are made; the next pod notices, and gets no requests.
    let config = "/volume/minilm/1_Pooling/config.json";
    let first_token = r#"{"word_embedding_dimension": 384, "pooling_mode_cls_token": true}"#;
    on_the_volume(ns, &format!("echo '{first_token}' >{config}")).await?;
    let pods = ["delete", "pods", "--selector=kembed.dev/service=minilm", "--wait=false"];
    ns.kubectl(&pods).await?;
    differs(ns, "minilm", Reason::DigestMismatch, "is recorded").await?;

    on_the_volume(ns, &format!("cp /image/1_Pooling/config.json {config}")).await?;
    ns.kubectl(&pods).await?;
    ns.await_serving("minilm", 1).await?;
    Ok(())
}
