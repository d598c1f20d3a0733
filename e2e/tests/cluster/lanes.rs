//! Who is answered first, and until when, as the headers of requests say.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    client::{Answer, vectors},
    service::{minilm, with},
    with_temp_ns,
    zero::woken,
};
use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};

const BULK: usize = 16;
const INTERACTIVE: usize = 4;
/// Texts of a bulk request.
const TEXTS: usize = 8;

/// Texts that keep a pod busy for a while.
fn many(number: usize) -> Value {
    let texts = (0..TEXTS).map(|i| format!("{number} {i} {}", "a text that is not so very short ".repeat(4)));
    json!({"model": "any", "input": texts.collect::<Vec<_>>()})
}

async fn ask(ns: &TempNamespace, header: (&str, &str), body: Value) -> anyhow::Result<Answer> {
    let url = format!("http://minilm.{}.svc/v1/embeddings", ns.name);
    ns.kembed.gateway.post_with(header, &url, body).await
}

/// All wait for the pod that they woke; those that came last are answered before most of the others.
#[tokio::test]
async fn interactive_requests_are_answered_before_bulk_ones() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        // All of it may take a busy machine longer than a pod has by default.
        let spec =
            json!({"scaling": {"minReplicas": 0, "maxReplicas": 1}, "traffic": {"requestTimeout": "4m"}});
        ns.apply(with(minilm("minilm"), spec)).await?;
        ns.await_serving("minilm", 1).await?;
        // Once more from zero if one was refused: who sends again comes later than the others.
        let order = woken(async || {
            ns.to_zero("minilm").await?;
            all(&ns).await
        })
        .await?;
        let last = order.iter().rposition(|&lane| lane == "interactive").context("no interactive one")?;
        ensure!(last < order.len() / 2, "an interactive request waited for bulk ones: {order:?}");
        Ok(())
    })
    .await
}

/// Asks for all at the same time, and tells in which order their lanes are answered.
async fn all(ns: &TempNamespace) -> anyhow::Result<Vec<&'static str>> {
    let lanes = (0..BULK + INTERACTIVE).map(|i| if i < BULK { "bulk" } else { "interactive" });
    let asked = lanes.enumerate().map(|(number, lane)| async move {
        let (body, texts) = match lane {
            "bulk" => (many(number), TEXTS),
            _ => (json!({"model": "any", "input": format!("number {number}")}), 1),
        };
        let answer = ask(ns, ("x-kembed-lane", lane), body).await?.success()?;
        ensure!(vectors(&answer.body)?.len() == texts, "{lane} {number} has other vectors");
        anyhow::Ok(lane)
    });
    let mut answered: FuturesUnordered<_> = asked.collect();
    let mut order = Vec::new();
    while let Some(lane) = answered.next().await {
        order.push(lane?);
    }
    Ok(order)
}

#[tokio::test]
async fn who_will_not_wait_for_a_pod_hears_so_in_time() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 0}}))).await?;
        ns.await_serving("minilm", 1).await?;
        let one = || json!({"model": "any", "input": "hello"});
        let patient = ask(&ns, ("x-kembed-deadline-ms", "200000"), one()).await?.success()?;
        ensure!(vectors(&patient.body)?.len() == 1, "{patient:?}");
        let wrong = ask(&ns, ("x-kembed-deadline-ms", "soon"), one()).await?;
        ensure!(wrong.status == 400, "{wrong:?}");

        ns.to_zero("minilm").await?;
        // No pod starts in that time.
        let hasty = ask(&ns, ("x-kembed-deadline-ms", "50"), one()).await?;
        ensure!(hasty.status == 504 && hasty.json()?["error"]["code"] == "deadline_passed", "{hasty:?}");
        ensure!(hasty.header("x-should-retry") == Some("false"), "{hasty:?}");
        Ok(())
    })
    .await
}
