//! A service at zero, and who wakes it.

use std::time::Instant;

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    service::{condition, minilm, with},
    wait::await_that,
    with_temp_ns,
};
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason, ScalingReason},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_request_at_zero_brings_a_pod_and_a_look_does_not() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 0}}))).await?;
        ns.await_serving("minilm", 1).await?;
        let base = format!("http://minilm.{}.svc", ns.name);
        for round in 1..=3 {
            to_zero(&ns).await?;
            look(&ns, &base).await?;
            let took = vector(&ns, &base).await?;
            eprintln!("from zero to a vector, round {round}: {took:.2} s");
        }
        let woken = ns.await_serving("minilm", 1).await?;
        let scaling = woken.status.and_then(|status| status.scaling).context("status.scaling says why")?;
        ensure!(scaling.reason == ScalingReason::Activated.as_str(), "{scaling:?}");
        let events = ns.events().await?;
        ensure!(events.iter().any(|event| event.starts_with("Activated: ")), "{events:?}");
        Ok(())
    })
    .await
}

/// Nobody but the controller learns what a gateway is asked for.
#[tokio::test]
async fn the_load_is_for_the_controller_alone() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let token = ns.kubectl(&["create", "token", "default", "--audience=kembed-gateway"]).await?;
        for gateway in ns.kembed.gateways().await? {
            let url = "http://gateway:8082/internal/load";
            ensure!(gateway.get(url).await?.status == 401, "a caller without a token was let in");
            let refused = gateway.send_as(token.trim(), Method::GET, url).await?;
            ensure!(refused.status == 403, "a stranger's token was answered with {refused:?}");
        }
        Ok(())
    })
    .await
}

/// Takes the last pod away, and waits until all know.
async fn to_zero(ns: &TempNamespace) -> anyhow::Result<()> {
    ns.kubectl(&["scale", "emb/minilm", "--replicas=0"]).await?;
    let asleep = |emb: &EmbeddingService| {
        let ready = condition(emb, ConditionType::Ready);
        ready.is_some_and(|ready| ready.status == "True" && ready.reason == Reason::ScaledToZero.as_str())
            && emb.status.as_ref().is_some_and(|status| status.replicas == 0)
    };
    ns.await_service("minilm", "the service to sleep", asleep).await?;
    let url = format!("http://minilm.{}.svc:8080/info", ns.name);
    for gateway in ns.kembed.gateways().await? {
        let refuses = async || Ok(gateway.get(&url).await?.body.contains("ScaledToZero").then_some(()));
        await_that("each gateway to know that it sleeps", refuses).await?;
    }
    Ok(())
}

async fn look(ns: &TempNamespace, base: &str) -> anyhow::Result<()> {
    for path in ["/", "/health", "/health/ready", "/info", "/v1/models", "/metrics"] {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let answer = ns.kembed.gateway.send(method.clone(), &format!("{base}{path}"), None).await?;
            ensure!(answer.status == 503, "{method} {path} at zero answers {answer:?}");
        }
    }
    let replicas = ns.kubectl(&["get", "emb/minilm", "--output=jsonpath={.spec.replicas}"]).await?;
    ensure!(replicas == "0", "looking at it made replicas {replicas}");
    Ok(())
}

/// Asks again and again until there is a vector; tells how many seconds that took.
async fn vector(ns: &TempNamespace, base: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let request = json!({"model": "minilm", "input": "hello"});
    await_that("a vector", || async {
        let answer = ns.kembed.gateway.post(&format!("{base}/v1/embeddings"), request.clone()).await?;
        ensure!(answer.status == 200 || answer.header("x-should-retry") == Some("true"), "{answer:?}");
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    Ok(began.elapsed().as_secs_f64())
}
