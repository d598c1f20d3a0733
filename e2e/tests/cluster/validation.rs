//! What the API server refuses at once, and with which words.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use e2e::{
    TempNamespace,
    service::{minilm, of_model, with},
    with_temp_ns,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kembed_crds::EmbeddingService;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// A digest that no model has.
const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A bad object, and the beginning of the message of the rule that it breaks.
struct Case {
    object: Value,
    message: &'static str,
}

fn spec(spec: Value, message: &'static str) -> Case {
    Case { object: with(minilm("minilm"), spec), message }
}

fn model(model: Value, message: &'static str) -> Case {
    spec(json!({"model": model}), message)
}

/// What can be seen from the object alone.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case { object: minilm(&"a".repeat(41)), message: "metadata.name becomes a host name" },
        Case { object: minilm("a.b"), message: "metadata.name becomes a host name" },
        Case { object: of_model("minilm", "ftp://host/model"), message: "uri must begin with" },
        Case { object: of_model("minilm", "hf://only-a-name"), message: "a hub model is written" },
        Case { object: of_model("minilm", "pvc://Claim/folder"), message: "a model on a volume is written" },
        Case { object: of_model("minilm", "pvc://claim/../other"), message: "the folder in pvc://" },
        model(json!({"file": "../model.onnx"}), "file names an ONNX file"),
        model(json!({"file": "model.safetensors"}), "file names an ONNX file"),
        model(json!({"digest": "sha256:abc"}), "digest is 'sha256:'"),
        model(json!({"cache": {}}), "cache needs exactly one of"),
        model(
            json!({"cache": {"emptyDir": {}, "persistentVolumeClaim": {"claimName": "models"}}}),
            "cache needs exactly one of",
        ),
        model(json!({"maxTokens": 0}), "maxTokens must be between"),
        spec(json!({"replicas": -1}), "replicas counts pods"),
    ];
    cases.extend(traffic_and_scaling());
    cases.extend(pods());
    cases
}

fn traffic_and_scaling() -> Vec<Case> {
    let scaling = |scaling: Value, message| spec(json!({"scaling": scaling}), message);
    let traffic = |traffic: Value, message| spec(json!({"traffic": traffic}), message);
    let key = |change: Value, message| {
        let mut key = json!({"name": "team", "sha256": "0".repeat(64)});
        key.as_object_mut().expect("it is one").extend(change.as_object().expect("it is one").clone());
        spec(json!({"traffic": {"apiKeys": [key]}}), message)
    };
    vec![
        scaling(json!({"minReplicas": 3, "maxReplicas": 2}), "minReplicas must not exceed"),
        scaling(json!({"minReplicas": -1}), "minReplicas counts pods"),
        scaling(json!({"maxReplicas": 0}), "maxReplicas must be at least 1"),
        scaling(json!({"queueDepth": 0}), "queueDepth counts"),
        scaling(json!({"scaleToZeroAfter": "0s"}), "scaleToZeroAfter must be"),
        scaling(json!({"latency": {"percentile": 100, "target": "200ms"}}), "percentile must be"),
        scaling(json!({"latency": {"percentile": 0, "target": "200ms"}}), "percentile must be"),
        scaling(json!({"latency": {"target": "0ms"}}), "target must be longer"),
        traffic(json!({"queueTimeout": "2h"}), "queueTimeout must be"),
        traffic(json!({"requestTimeout": "0s"}), "requestTimeout must be"),
        traffic(json!({"maxQueuedRequests": 0}), "maxQueuedRequests must be"),
        traffic(json!({"hedgePercent": 0}), "hedgePercent must be"),
        traffic(json!({"hedgePercent": 21}), "hedgePercent must be"),
        key(json!({"name": "Search Team"}), "the name of a key"),
        key(json!({"sha256": "secret"}), "sha256 is the key's hash"),
        key(json!({"requestsPerSecond": 0}), "requestsPerSecond must be"),
        key(json!({"tokensPerMinute": 0}), "tokensPerMinute must be"),
    ]
}

fn pods() -> Vec<Case> {
    let template = |template: Value, message| spec(json!({"podTemplate": template}), message);
    let gpu = |resource: Value, message| spec(json!({"accelerator": {"resource": resource}}), message);
    vec![
        spec(json!({"accelerator": {}}), "accelerator needs a member"),
        gpu(json!({"name": "gpu"}), "a device resource is written"),
        gpu(json!({"name": "nvidia.com/gpu", "count": 0}), "a pod needs at least one device"),
        spec(json!({"rollout": {"maxSurge": 0, "maxUnavailable": "0%"}}), "maxSurge and maxUnavailable"),
        template(json!({"labels": {"kembed.dev/service": "other"}}), "labels that begin with"),
        template(
            json!({"env": [{"name": "KEMBED_MODEL", "value": "x"}]}),
            "environment variables that begin with",
        ),
        template(json!({"volumes": [{"name": "kembed-cache", "emptyDir": {}}]}), "volumes whose names"),
    ]
}

/// What is refused by the schema before any rule is asked.
fn malformed() -> Vec<Case> {
    vec![
        spec(json!({"scaling": {"scaleToZeroAfter": "5 minutes"}}), "spec.scaling.scaleToZeroAfter"),
        spec(json!({"scaling": {"latency": {"target": "1.5s"}}}), "spec.scaling.latency.target"),
        model(json!({"pooling": "Max"}), "spec.model.pooling"),
        model(json!({"precision": "Float8"}), "spec.model.precision"),
        Case { object: of_model("minilm", ""), message: "spec.model.uri" },
    ]
}

/// Changes of a service whose space is recorded.
fn changes() -> Vec<Case> {
    let change = |model: Value, message| Case { object: json!({"spec": {"model": model}}), message };
    let cannot = "spec.model cannot change once";
    vec![
        change(json!({"uri": "hf://another/model"}), cannot),
        change(json!({"file": "onnx/model.onnx"}), cannot),
        change(json!({"maxTokens": 64}), cannot),
        change(json!({"pooling": "Cls"}), cannot),
        change(json!({"normalization": "None"}), cannot),
        change(json!({"precision": "Int8"}), cannot),
        change(json!({"prompts": {"query": "query: "}}), cannot),
        change(json!({"digest": format!("sha256:{}", "1".repeat(64))}), "spec.model.digest can only be set"),
    ]
}

#[tokio::test]
async fn bad_objects_are_refused_with_words_that_help() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        apply(&ns, &minilm("minilm"))
            .await
            .context("the object that the bad ones are made of is bad itself")?;
        for case in cases().into_iter().chain(malformed()) {
            refused(&case, apply(&ns, &case.object).await)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_defines_a_recorded_space_cannot_change() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let services = ns.api::<EmbeddingService>();
        ns.apply(with(minilm("minilm"), json!({"replicas": 0}))).await?;
        ns.await_service("minilm", "a first status", |emb| emb.status.is_some()).await?;
        change(&ns, &json!({"spec": {"model": {"pooling": "Cls"}}}))
            .await
            .context("nothing is recorded yet")?;
        let space = json!({"status": {"space": {"digest": DIGEST, "dimension": 384, "maxTokens": 256}}});
        services.patch_status("minilm", &PatchParams::default(), &Patch::Merge(&space)).await?;

        for case in changes() {
            refused(&case, change(&ns, &case.object).await)?;
        }
        change(&ns, &json!({"spec": {"model": {"digest": DIGEST}}}))
            .await
            .context("it is the recorded digest")?;
        change(&ns, &json!({"spec": {"replicas": 3}})).await.context("replicas do not define the space")?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_rule_has_a_bad_object() -> anyhow::Result<()> {
    let kembed = e2e::installation().await?;
    let crds = Api::<CustomResourceDefinition>::all(kembed.kube);
    let crd = crds.get("embeddingservices.kembed.dev").await?;
    let mut messages = BTreeSet::new();
    for version in crd.spec.versions {
        let schema = version
            .schema
            .and_then(|schema| schema.open_api_v3_schema)
            .context("a version without a schema")?;
        collect(&schema, &mut messages);
    }
    let cases: Vec<_> = cases().into_iter().chain(changes()).collect();
    let untested: Vec<_> = messages
        .iter()
        .filter(|message| !cases.iter().any(|case| message.starts_with(case.message)))
        .collect();
    ensure!(untested.is_empty(), "rules without a case in this file: {untested:#?}");
    ensure!(messages.len() > 20, "only {} rules were found: is the schema searched wrongly?", messages.len());
    Ok(())
}

/// Messages of all rules in a schema.
fn collect(schema: &JSONSchemaProps, messages: &mut BTreeSet<String>) {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    messages.extend(rules.map(|rule| rule.message.clone().unwrap_or_else(|| rule.rule.clone())));
    for property in schema.properties.iter().flat_map(|properties| properties.values()) {
        collect(property, messages);
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => collect(items, messages),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter().for_each(|items| collect(items, messages))
        }
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        collect(values, messages);
    }
}

fn refused(case: &Case, result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Ok(()) => bail!("accepted, which {:?} should prevent: {}", case.message, case.object),
        Err(error) => {
            let error = format!("{error:#}");
            ensure!(error.contains(case.message), "not {:?} but: {error}", case.message);
            Ok(())
        }
    }
}

/// Asks the API server whether it would take this object.
async fn apply(ns: &TempNamespace, object: &Value) -> anyhow::Result<()> {
    let name = object["metadata"]["name"].as_str().context("an object without a name")?;
    let params = PatchParams { dry_run: true, ..PatchParams::apply("e2e") };
    ns.api::<EmbeddingService>().patch(name, &params, &Patch::Apply(object)).await?;
    Ok(())
}

/// Asks the API server whether it would take this change of the EmbeddingService.
async fn change(ns: &TempNamespace, change: &Value) -> anyhow::Result<()> {
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    ns.api::<EmbeddingService>().patch("minilm", &params, &Patch::Merge(change)).await?;
    Ok(())
}
