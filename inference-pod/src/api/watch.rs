//! What surrounds every request that leads to the network.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use kembed_runtime::traces::Span;

use super::{ApiError, terms::patience};
use crate::{
    metrics::{Answered, Refused},
    pod::Pod,
};

/// Ends a request when its time is over or its client waits no longer, a slow body's too, and counts its answer.
/// What it has in the queue is dropped with it.
pub(super) async fn bounded_and_counted(
    State(pod): State<Arc<Pod>>,
    request: Request,
    next: Next,
) -> Response {
    let span = of_request(&request);
    let response = match patience(request.headers()) {
        Ok(patience) => {
            let time = patience.map_or(pod.limits.timeout, |patience| patience.min(pod.limits.timeout));
            let answer = tokio::time::timeout(time, span.around(next.run(request))).await;
            answer.unwrap_or_else(|_| ApiError::too_late().into_response())
        }
        Err(refusal) => refusal.into_response(),
    };
    let code = match response.status().as_u16() {
        ..400 => "2xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    if let Some(error) = response.extensions().get::<ApiError>() {
        pod.metrics.refusals.get_or_create(&Refused { reason: error.reason.code() }).inc();
    }
    span.set("http.response.status_code", i64::from(response.status().as_u16()));
    span.end(response.status().is_server_error());
    pod.metrics.requests.get_or_create(&Answered { code }).inc();
    response
}

/// Named by its route: a path, which has no query, holds no input.
fn of_request(request: &Request) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    let span = Span::of_request(request.headers(), || format!("{method} {path}"));
    span.set("http.request.method", method.to_string());
    span.set("http.route", path.to_owned());
    span
}
