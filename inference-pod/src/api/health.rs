//! What the pod says about itself. None of this waits for work.

use std::sync::Arc;

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::ApiError;
use crate::pod::Pod;

/// `GET /health/live`: the process answers.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// `GET /health/ready`: whether requests may come, else what is waited for.
pub(super) async fn ready(State(pod): State<Arc<Pod>>) -> Response {
    match pod.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// `GET /health`: the same, as clients of text-embeddings-inference ask.
pub(super) async fn health(State(pod): State<Arc<Pod>>) -> Result<(), ApiError> {
    pod.ready().map_err(ApiError::not_ready)
}

/// `GET /metrics`
pub(super) async fn metrics(State(pod): State<Arc<Pod>>) -> Response {
    kembed_runtime::metrics::response(&pod.registry)
}
