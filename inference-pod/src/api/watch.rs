//! What surrounds every request that leads to the network.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::ApiError;
use crate::{metrics::Answered, pod::Pod};

/// Ends a request when its time is over, a slow body's too, and counts its answer.
pub(super) async fn bounded_and_counted(
    State(pod): State<Arc<Pod>>,
    request: Request,
    next: Next,
) -> Response {
    let response = match tokio::time::timeout(pod.limits.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::too_late().into_response(),
    };
    let code = match response.status().as_u16() {
        ..400 => "2xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    pod.metrics.requests.get_or_create(&Answered { code }).inc();
    response
}
