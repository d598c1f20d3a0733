//! The listener that the kubelet and Prometheus ask: `/health/live`, `/health/ready`, `/metrics`.

use std::{io, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Answers until `shutdown` is cancelled. `/health/live` always says 200, `/health/ready` asks `ready`, which must not
/// block.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/health/live", get(|| async { StatusCode::OK }))
        .route(
            "/health/ready",
            get(
                move || async move { if ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE } },
            ),
        )
        .route(
            "/metrics",
            get(|State(registry): State<Arc<Registry>>| async move { metrics::response(&registry) }),
        )
        .with_state(Arc::new(registry));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
