//! A pod that is told of a collector sends it the traces of its requests.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    collector_client::{ENDPOINT, is_inside},
    service::{SHIPPED, of_model, with},
    with_temp_ns,
};
use kube::ResourceExt;
use serde_json::{Value, json};

/// The span of a client that sends none itself.
const CLIENT: &str = "b7ad6b7169203331";

/// Nanoseconds. Two clocks are read one after the other, and a thread may have to wait in between.
const SLACK: u64 = 100_000_000;

/// A small service whose pods send traces to `endpoint` in the name of the namespace.
async fn traced(ns: &TempNamespace, name: &str, endpoint: &str) -> anyhow::Result<String> {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_SERVICE_NAME", &ns.name),
        // Milliseconds; 5,000 unless told.
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let env = variables.map(|(name, value)| json!({"name": name, "value": value}));
    ns.apply(with(of_model(name, &format!("hf://{SHIPPED}")), json!({"podTemplate": {"env": env}}))).await?;
    let service = ns.await_serving(name, 1).await?;
    // An object's own number is as good for a trace as any.
    Ok(service.uid().context("an object without a UID")?.replace('-', ""))
}

/// Asks from a pod, as part of a trace that is recorded or not.
async fn ask(ns: &TempNamespace, name: &str, trace: &str, is_recorded: bool) -> anyhow::Result<Value> {
    let parent = format!("traceparent: 00-{trace}-{CLIENT}-0{}", u8::from(is_recorded));
    let url = format!("http://{name}.{}.svc/embed", ns.name);
    let answer = ns
        .curl(&["--fail-with-body", "--header", &parent, "--json", r#"{"inputs": "a secret"}"#, &url])
        .await?;
    serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))
}

#[tokio::test]
async fn a_request_becomes_the_spans_of_its_way() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let trace = traced(&ns, "traced", ENDPOINT).await?;
        // Its last digit changed; what a client does not record is not sent.
        let other = trace.chars().rev().map(|c| if c == '0' { '1' } else { '0' }).collect::<String>();
        ask(&ns, "traced", &other, false).await?;
        ask(&ns, "traced", &trace, true).await?;

        let collector = &ns.kembed.collector;
        let spans = collector.await_spans(&trace, &["POST /embed", "tokenise", "queue", "run"]).await?;
        let named = |name: &str| {
            let mut mine = spans.iter().filter(|span| span.name == name && span.service == ns.name);
            let one = mine.next().with_context(|| format!("no {name} among {spans:?}"))?;
            ensure!(mine.next().is_none(), "{name} twice: {spans:?}");
            Ok(one)
        };
        let request = named("POST /embed")?;
        ensure!(is_inside(request, CLIENT, &spans), "it does not continue the client's trace: {spans:?}");
        let said = |key: &str| request.attributes.get(key).map(String::as_str);
        let about = ["http.request.method", "http.route", "http.response.status_code"].map(said);
        ensure!(about == [Some("POST"), Some("/embed"), Some("200")] && !request.failed, "{request:?}");
        let mut before = request.start;
        for name in ["tokenise", "queue", "run"] {
            let part = named(name)?;
            ensure!(part.parent.as_ref() == Some(&request.id), "{name} is no part of the request: {spans:?}");
            let in_order = before <= part.start + SLACK && part.start <= part.end;
            ensure!(
                in_order && part.end <= request.end + SLACK,
                "{name} is not when it should be: {spans:?}"
            );
            before = part.start;
        }
        ensure!(!format!("{spans:?}").contains("secret"), "an input is in them: {spans:?}");
        let unasked = collector.spans(&other).await?;
        ensure!(unasked.is_empty(), "spans that its client does not record: {unasked:?}");
        Ok(())
    })
    .await
}
