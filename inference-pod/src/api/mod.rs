//! The ways in: what clients send is read, what they get is written, and the engine does the rest.

mod body;
mod error;
mod health;
mod openai;
mod plain;
mod query;
mod read;
mod watch;

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use kembed_queue::wire::{INFO_PATH, LIVE_PATH, READY_PATH};

use self::error::ApiError;
use crate::pod::Pod;

/// Everything that the pod answers.
pub fn router(pod: Arc<Pod>) -> Router {
    // Routes that lead to the network: bounded in time and counted.
    let inference = Router::new()
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/", get(plain::content))
        .route("/get_vector_simple", get(plain::sentence))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(pod.clone(), watch::bounded_and_counted));
    Router::new()
        .route("/v1/models", get(openai::models))
        .route(INFO_PATH, get(health::info))
        .route(LIVE_PATH, get(health::live))
        .route(READY_PATH, get(health::ready))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .merge(inference)
        .fallback(not_found)
        .with_state(pod)
}

async fn not_found() -> ApiError {
    ApiError::not_found()
}

async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}
