//! A trace as real requests at real times.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use kembed_crds::EmbeddingService;
use kembed_scaling::simulate::{Trace, Watch};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::run::Run;
use crate::{TempNamespace, client::Client, stub};

/// Between two looks at the count.
const PERIOD: Duration = Duration::from_millis(200);

/// Pauses before a request is sent again.
const RETRIES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// Sends each request when it comes, whatever became of those before, and watches the count meanwhile.
///
/// # Errors
/// If the service cannot be looked at.
pub async fn drive(ns: &TempNamespace, name: &str, trace: &Trace) -> anyhow::Result<Run> {
    let began = Instant::now();
    let url = format!("http://{name}.{}.svc/v1/embeddings", ns.name);
    let sending = tokio::spawn(send(ns.kembed.gateway.clone(), url, trace.clone(), began));
    let mut run = watch(ns, name, began, Duration::from_secs_f64(trace.seconds())).await?;
    for (came, took) in sending.await.context("the sender panicked")? {
        match took {
            Some(took) => run.answers.push((came, took)),
            None => run.failed += 1,
        }
    }
    Ok(run)
}

async fn send(client: Client, url: String, trace: Trace, began: Instant) -> Vec<(f64, Option<f64>)> {
    let mut texts = BTreeMap::new();
    let mut underway = JoinSet::new();
    for arrival in trace.arrivals() {
        let at = began + Duration::from_secs_f64(arrival.at);
        sleep_until(at.into()).await;
        let text = texts.entry(arrival.tokens).or_insert_with(|| stub::text(arrival.tokens.into())).clone();
        let (client, url) = (client.clone(), url.clone());
        underway.spawn(async move {
            let sent = Instant::now();
            let body = json!({"model": "any", "input": text});
            let took = answered(&client, &url, &body).await.map(|()| sent.elapsed().as_secs_f64());
            (sent.duration_since(began).as_secs_f64(), took.inspect_err(|error| eprintln!("{error:#}")).ok())
        });
    }
    underway.join_all().await
}

/// As OpenAI's clients do: what fails is sent twice more.
async fn answered(client: &Client, url: &str, body: &Value) -> anyhow::Result<()> {
    let send = async || client.post(url, body.clone()).await?.success().map(drop);
    for pause in RETRIES {
        match send().await {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("trying again: {error:#}"),
        }
        sleep(pause).await;
    }
    send().await
}

async fn watch(ns: &TempNamespace, name: &str, began: Instant, lasts: Duration) -> anyhow::Result<Run> {
    let services = ns.api::<EmbeddingService>();
    let (mut run, mut told) = (Run::default(), None);
    while began.elapsed() < lasts {
        let next = Instant::now() + PERIOD;
        let service = services.get(name).await.context("failed to get the service")?;
        let at = began.elapsed().as_secs_f64();
        let status = service.status.unwrap_or_default();
        let (pods, ready) = (service.spec.replicas.max(0), status.ready_replicas.max(0));
        run.count(at, pods.unsigned_abs(), ready.unsigned_abs());
        if let Some(scaling) = status.scaling {
            let reason = (scaling.since.clone(), scaling.reason.clone());
            if told.as_ref() != Some(&reason) {
                run.reasons.push((at, scaling.reason));
                told = Some(reason);
            }
        }
        sleep_until(next.into()).await;
    }
    ensure!(!run.counts.is_empty(), "nothing was watched");
    Ok(run)
}
