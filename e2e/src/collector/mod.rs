//! A stand-in for a collector of OpenTelemetry: takes the traces that programs send, over OTLP/HTTP with protobuf, and
//! tells tests which spans it got.

pub mod span;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde::{Deserialize, Serialize};

use self::span::Span;

/// Spans kept, the latest: many more than any test makes between two looks.
const KEPT: usize = 16_384;

/// What OTLP's messages are, as opposed to JSON.
const PROTOBUF: &str = "application/x-protobuf";

/// The state of the server.
#[derive(Clone, Default)]
pub struct Collector {
    spans: Arc<Mutex<VecDeque<Span>>>,
}

/// Query of `GET /spans`, which answers a list of [`Span`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Spans of this trace alone.
    pub trace: String,
}

impl Collector {
    /// Everything that the server answers.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/traces", post(export))
            .route("/spans", get(spans))
            .route("/health", get(async || "ok"))
            .with_state(self.clone())
    }

    fn spans(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn export(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != PROTOBUF) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let request = match ExportTraceServiceRequest::decode(body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let mut kept = collector.spans();
    kept.extend(span::of_request(request));
    let surplus = kept.len().saturating_sub(KEPT);
    kept.drain(..surplus);
    drop(kept);
    ([(CONTENT_TYPE, PROTOBUF)], ExportTraceServiceResponse::default().encode_to_vec()).into_response()
}

async fn spans(State(collector): State<Collector>, Query(about): Query<About>) -> Json<Vec<Span>> {
    Json(collector.spans().iter().filter(|span| span.trace == about.trace).cloned().collect())
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};
    use http_body_util::BodyExt;
    use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans};
    use tower::ServiceExt;

    use super::*;

    async fn ask(collector: &Collector, request: Request) -> (u16, Bytes) {
        let response = collector.router().oneshot(request).await.expect("a router never fails");
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.expect("a body").to_bytes())
    }

    async fn send(collector: &Collector, kind: &str, body: Vec<u8>) -> u16 {
        let request = Request::post("/v1/traces").header(CONTENT_TYPE, kind).body(Body::from(body));
        ask(collector, request.expect("a request")).await.0
    }

    async fn names(collector: &Collector, trace: u8) -> Vec<String> {
        let path = format!("/spans?trace={}", format!("{trace:02x}").repeat(16));
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let (status, body) = ask(collector, request).await;
        assert_eq!(status, 200);
        let spans: Vec<Span> = serde_json::from_slice(&body).expect("a list of spans");
        spans.into_iter().map(|span| span.name).collect()
    }

    /// So many spans of a trace, called 0, 1, 2 and so on.
    fn sent(trace: u8, spans: usize) -> Vec<u8> {
        let span = |number: usize| otlp::Span {
            trace_id: vec![trace; 16],
            name: number.to_string(),
            ..otlp::Span::default()
        };
        let scope = ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() };
        let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
    }

    #[tokio::test]
    async fn spans_are_told_by_their_trace() {
        let collector = Collector::default();
        assert_eq!(send(&collector, PROTOBUF, sent(1, 2)).await, 200);
        assert_eq!(send(&collector, PROTOBUF, sent(2, 1)).await, 200);
        assert_eq!(names(&collector, 1).await, ["0", "1"]);
        assert_eq!(names(&collector, 2).await, ["0"]);
        assert!(names(&collector, 3).await.is_empty());
    }

    #[tokio::test]
    async fn the_latest_are_kept() {
        let collector = Collector::default();
        assert_eq!(send(&collector, PROTOBUF, sent(1, 2)).await, 200);
        assert_eq!(send(&collector, PROTOBUF, sent(2, KEPT - 1)).await, 200);
        assert_eq!(names(&collector, 1).await, ["1"]);
        assert_eq!(names(&collector, 2).await.len(), KEPT - 1);
    }

    #[tokio::test]
    async fn what_is_no_trace_is_refused() {
        let collector = Collector::default();
        assert_eq!(send(&collector, PROTOBUF, vec![0xff; 8]).await, 400);
        assert_eq!(send(&collector, "application/json", b"{}".to_vec()).await, 415);
    }
}
