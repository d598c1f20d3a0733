//! Traces by OpenTelemetry: sent to a collector over OTLP if the environment names one, else nothing at all.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) turns them on; `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_EXPORTER_OTLP_HEADERS` and their like mean what they mean everywhere. No span holds an input.

use std::{
    env,
    sync::OnceLock,
    time::{Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, Value,
    propagation::TextMapPropagator,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

use tokio_util::either::Either;

use crate::exporter::Outspoken;

/// Only set where traces are on: without, a span costs a look at this.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

tokio::task_local! {
    static CURRENT: Span;
}

/// Sending traces, until this is dropped, which sends what is left.
#[must_use = "traces end when this is dropped"]
pub struct Traces(Option<SdkTracerProvider>);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// What the environment says about the collector cannot be.
    #[error("failed to prepare for sending traces")]
    Exporter(#[from] ExporterBuildError),
    /// No HTTP client could be made.
    #[error("failed to make a client for sending traces")]
    Client(#[from] reqwest::Error),
    /// A thread panicked or could not be started.
    #[error("failed to start a thread for sending traces")]
    Thread,
    /// They are started already.
    #[error("traces were started twice")]
    Twice,
}

/// Starts traces if the environment asks for them. `program` is the service's name, unless that is in the environment.
///
/// # Errors
/// If they are asked for in a way that cannot be.
pub fn start(program: &'static str) -> Result<Traces, TracesError> {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let is_disabled = env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if is_disabled || !endpoints.iter().any(is_set) {
        return Ok(Traces(None));
    }
    let protocols = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    if let Some(protocol) = protocols.iter().find_map(|name| env::var(name).ok())
        && protocol != "http/protobuf"
    {
        tracing::warn!(protocol, "traces are sent by http/protobuf alone; its port is 4318 as a rule");
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client()?)
        .with_protocol(Protocol::HttpBinary)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Outspoken::new(exporter))
        .with_resource(resource(program))
        .build();
    TRACER.set(provider.tracer("kembed")).map_err(|_| TracesError::Twice)?;
    tracing::info!("sending traces");
    Ok(Traces(Some(provider)))
}

/// A client that blocks: what sends has a thread of its own. It cannot be made on a thread of an asynchronous runtime.
fn client() -> Result<reqwest::blocking::Client, TracesError> {
    // The provider of cryptography is the process's, and it is no harm if it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::blocking::Client::builder;
    // A machine without root certificates can still send over plain HTTP.
    let make = move || builder().build().or_else(|_| builder().tls_certs_only([]).build());
    let made = std::thread::Builder::new().spawn(make).map_err(|_| TracesError::Thread)?;
    Ok(made.join().map_err(|_| TracesError::Thread)??)
}

fn resource(program: &'static str) -> Resource {
    let attributes = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = env::var_os("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=");
    let resource = Resource::builder();
    if is_named { resource.build() } else { resource.with_service_name(program).build() }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
            tracing::warn!(%error, "failed to send the last traces");
        }
    }
}

/// A part of a request's way, or nothing where traces are off. Clones are the same span.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// The span of a request that came with these headers: it continues the trace that they name (W3C `traceparent`),
    /// or begins one. `name` is the route, as in `POST /v1/embeddings`.
    pub fn of_request(headers: &HeaderMap, name: impl FnOnce() -> String) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let caller =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let builder = SpanBuilder::from_name(name()).with_kind(SpanKind::Server);
        Self(Some(caller.with_span(tracer.build_with_context(builder, &caller))))
    }

    /// A span inside this one, of a request that this program sends.
    pub fn of_sent_request(&self, name: &'static str) -> Self {
        self.inner(|| SpanBuilder::from_name(name).with_kind(SpanKind::Client))
    }

    /// A span inside this one.
    pub fn part(&self, name: &'static str) -> Self {
        self.inner(|| SpanBuilder::from_name(name))
    }

    fn inner(&self, builder: impl FnOnce() -> SpanBuilder) -> Self {
        let parts = self.parts();
        Self(parts.map(|(tracer, context)| context.with_span(tracer.build_with_context(builder(), context))))
    }

    /// Names this span to whom the headers are sent, so that they continue the trace. Leaves them alone where traces are
    /// off: what a client sent is passed on.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        }
    }

    /// The span that the running task was put in by [`Span::around`].
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Runs something as part of this span. (An `async fn` would have room for it three times over.)
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            None => Either::Left(work),
            Some(_) => Either::Right(CURRENT.scope(self.clone(), work)),
        }
    }

    /// Records a part of this span that is over.
    pub fn past(&self, name: &'static str, start: Instant, end: Instant) {
        let Some((tracer, context)) = self.parts() else { return };
        let (now, real_now) = (Instant::now(), SystemTime::now());
        let real = |instant: Instant| real_now - now.saturating_duration_since(instant);
        let builder = SpanBuilder::from_name(name).with_start_time(real(start));
        let mut span = tracer.build_with_context(builder, context);
        opentelemetry::trace::Span::end_with_timestamp(&mut span, real(end));
    }

    /// Whether there is anything to say about this span.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Says something about this span. Never an input.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Ends this span; `failed` if this program is at fault.
    pub fn end(&self, failed: bool) {
        let Some(context) = &self.0 else { return };
        if failed {
            context.span().set_status(Status::error(""));
        }
        context.span().end();
    }

    fn parts(&self) -> Option<(&'static SdkTracer, &Context)> {
        Some((TRACER.get()?, self.0.as_ref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On, they are tested with the inference pod and the gateway, whose processes have environments of their own.
    #[tokio::test]
    async fn nothing_happens_where_traces_are_off() {
        let mut headers = HeaderMap::new();
        let span = Span::of_request(&headers, || unreachable!("no name is made"));
        span.around(async { assert!(Span::current().0.is_none()) }).await;
        span.of_sent_request("sent").propagate(&mut headers);
        span.past("queue", Instant::now(), Instant::now());
        span.set("key", 1);
        span.end(true);
        assert!(headers.is_empty());
    }
}
