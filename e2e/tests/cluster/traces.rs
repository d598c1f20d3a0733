//! A request that its client records leaves a trace of its way: through a gateway to a pod, and in there.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    collector::span::Span,
    collector_client::is_inside,
    service::{SHIPPED, of_model, with},
    wait::await_that,
    with_temp_ns,
};
use kube::ResourceExt;
use serde_json::json;

/// The span of a client that sends none itself.
const CLIENT: &str = "b7ad6b7169203331";

/// Nanoseconds. Two clocks are read one after the other, and a thread may have to wait in between, for seconds where many do.
/// What is told in another unit, or by a clock that began elsewhere, is off by much more.
const SLACK: u64 = 30_000_000_000;

/// A small service with this in its pods' environment, and a number for a trace.
async fn traced(ns: &TempNamespace, name: &str, variable: (&str, &str)) -> anyhow::Result<String> {
    let template = json!({"podTemplate": {"env": [{"name": variable.0, "value": variable.1}]}});
    ns.apply(with(of_model(name, &format!("hf://{SHIPPED}")), template)).await?;
    let service = ns.await_serving(name, 1).await?;
    // An object's own number is as good for a trace as any.
    Ok(service.uid().context("an object without a UID")?.replace('-', ""))
}

/// Asks from a pod, as part of one trace after the other, each recorded by its client or not.
async fn ask(ns: &TempNamespace, name: &str, traces: &[(&str, bool)]) -> anyhow::Result<()> {
    let (body, url) = (r#"{"inputs": "a secret"}"#, format!("http://{name}.{}.svc/embed", ns.name));
    let parent = |(trace, is_recorded): &(&str, bool)| {
        format!("traceparent: 00-{trace}-{CLIENT}-0{}", u8::from(*is_recorded))
    };
    let parents: Vec<_> = traces.iter().map(parent).collect();
    let one =
        |parent| ["--fail-with-body", "--silent", "--show-error", "--header", parent, "--json", body, &url];
    let all: Vec<_> = parents.iter().map(|parent| one(parent.as_str())).collect();
    ns.curl(&all.join(&"--next")).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_becomes_the_spans_of_its_way() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let trace = traced(&ns, "traced", ("OTEL_SERVICE_NAME", &ns.name)).await?;
        let unrecorded: String = trace.chars().rev().collect();
        ask(&ns, "traced", &[(&unrecorded, false), (&trace, true)]).await?;

        let names = ["POST", "attempt", "POST /embed", "tokenise", "queue", "run"];
        let spans = ns.kembed.collector.await_spans(&trace, CLIENT, &names).await?;
        ensure!(!format!("{spans:?}").contains("secret"), "an input is in them: {spans:?}");
        let others = ns.kembed.collector.spans(&unrecorded).await?;
        ensure!(others.is_empty(), "spans that their client does not record: {others:?}");
        let request = in_the_pod(&spans, &ns.name)?;
        // Where the machine is busy there may be others before it, whose pod had no time.
        let attempt =
            named(&spans, "attempt", "kembed-gateway", |span| request.parent.as_ref() == Some(&span.id))?;
        // The gateway that a request came to may have given it to another.
        let continues = |span: &Span| span.parent.as_deref() == Some(CLIENT);
        let outermost = |span: &Span| continues(span) && is_inside(attempt, &span.id, &spans);
        named(&spans, "POST", "kembed-gateway", outermost).context("it does not continue the client's")?;
        Ok(())
    })
    .await
}

/// A span of this name from that program, such as is meant.
fn named<'a>(
    spans: &'a [Span],
    name: &str,
    program: &str,
    is_meant: impl Fn(&Span) -> bool,
) -> anyhow::Result<&'a Span> {
    let mut all = spans.iter().filter(|span| span.name == name && span.service == program);
    all.find(|span| is_meant(span)).with_context(|| format!("no such {name} of {program}: {spans:?}"))
}

/// What a pod tells of the request that it answered.
fn in_the_pod<'a>(spans: &'a [Span], program: &str) -> anyhow::Result<&'a Span> {
    fn said<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
        span.attributes.get(key).map(String::as_str)
    }
    let is_answered = |span: &Span| said(span, "http.response.status_code") == Some("200");
    let request = named(spans, "POST /embed", program, is_answered)?;
    let about = ["http.request.method", "http.route"].map(|key| said(request, key));
    ensure!(about == [Some("POST"), Some("/embed")] && !request.failed, "{request:?}");
    let mut before = request.start;
    for name in ["tokenise", "queue", "run"] {
        let part = named(spans, name, program, |span| span.parent.as_ref() == Some(&request.id))?;
        let in_order = before <= part.start + SLACK && part.start <= part.end;
        ensure!(in_order && part.end <= request.end + SLACK, "{name} is not when it should be: {spans:?}");
        before = part.start;
    }
    Ok(request)
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let trace = traced(&ns, "unheard", ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://nobody:4318")).await?;
        ask(&ns, "unheard", &[(trace.as_str(), true); 3]).await?;
        let told = || async {
            let log = ns.kubectl(&["logs", "deployment/unheard"]).await?;
            Ok(log.contains("failed to send traces").then_some(()))
        };
        await_that("the pod's log to say so", told).await
    })
    .await
}
