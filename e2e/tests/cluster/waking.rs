//! A service at zero, and who wakes it.

use std::time::Instant;

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    client::vectors,
    golden::{self, assert_right},
    service::{minilm, with},
    wait::await_that,
    with_temp_ns,
    zero::woken,
};
use futures::future::try_join_all;
use kembed_crds::EmbeddingService;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::try_join;

#[tokio::test]
async fn a_request_at_zero_brings_a_pod_and_a_look_does_not() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 0, "maxReplicas": 1}}))).await?;
        ns.await_serving("minilm", 1).await?;
        let base = format!("http://minilm.{}.svc", ns.name);
        let says_why = |emb: &EmbeddingService| {
            let scaling = emb.status.as_ref().and_then(|status| status.scaling.as_ref());
            scaling.is_some_and(|scaling| scaling.reason == "Activated")
        };
        for round in 1..=3 {
            ns.to_zero("minilm").await?;
            look(&ns, &base).await?;
            let began = Instant::now();
            let woken = async {
                ns.wake("minilm").await?;
                Ok(began.elapsed())
            };
            // Watched meanwhile: where the machine is busy it may say a moment later that a gateway is not heard.
            let told = ns.await_service("minilm", "status.scaling to say why it woke", says_why);
            let (took, _) = try_join!(woken, told)?;
            eprintln!("from zero to a vector, round {round}: {:.2} s", took.as_secs_f64());
        }
        ns.await_event("Activated: ").await
    })
    .await
}

#[tokio::test]
async fn who_asks_at_zero_waits_and_is_answered() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 0}}))).await?;
        ns.await_serving("minilm", 1).await?;
        let base = format!("http://minilm.{}.svc", ns.name);
        let golden = golden::all()?.into_iter().next().context("no golden vector")?;

        // One that knows nothing of kembed, by the name that pods use.
        ns.to_zero("minilm").await?;
        let body = json!({"model": "minilm", "input": golden.text}).to_string();
        let url = format!("{base}/v1/embeddings");
        let answer = woken(async || ns.curl(&["--fail-with-body", "--json", &body, &url]).await).await?;
        assert_right(&golden, vectors(&answer)?.first().context("no vector")?);

        // Many at once, at whichever gateway they get to.
        ns.to_zero("minilm").await?;
        let gateways = ns.kembed.gateways().await?;
        let own = format!("http://minilm.{}.svc:8080", ns.name);
        let (text, own) = (golden.text.as_str(), own.as_str());
        let ask =
            |gateway| woken(move || async move { e2e::Client::embed(gateway, own, "minilm", &[text]).await });
        let asked = gateways.iter().cycle().take(20).map(ask);
        for vectors in try_join_all(asked).await.context("one of those who waited")? {
            assert_right(&golden, vectors.first().context("no vector")?);
        }
        Ok(())
    })
    .await
}

/// Nobody but the controller learns what a gateway is asked for.
#[tokio::test]
async fn the_load_is_for_the_controller_alone() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.kubectl(&["create", "serviceaccount", "stranger"]).await?;
        let token = ns.kubectl(&["create", "token", "stranger", "--audience=kembed-gateway"]).await?;
        for gateway in ns.kembed.gateways().await? {
            let url = "http://gateway:8082/internal/load";
            ensure!(gateway.get(url).await?.status == 401, "a caller without a token was let in");
            let refused = await_that("the API server to say whose token it is", async || {
                let answer = gateway.send_as(token.trim(), Method::GET, url).await?;
                Ok((answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer))
            })
            .await?;
            ensure!(refused.status == 403, "a stranger's token was answered with {refused:?}");
        }
        Ok(())
    })
    .await
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
