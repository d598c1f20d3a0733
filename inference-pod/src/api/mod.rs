//! The ways in: what clients send is read, what they get is written, and the engine does the rest.

mod answer;
mod aside;
mod credit;
mod error;
mod health;
mod info;
mod openai;
mod openai_body;
mod options;
mod pages;
mod plain;
mod query;
mod read;
mod scores;
mod scores_body;
mod tei;
mod tei_body;
mod tei_error;
mod terms;
mod watch;

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn_with_state, map_response},
    routing::{get, options, post},
};
use kembed_queue::wire::{INFO_PATH, LIVE_PATH, READY_PATH};

use self::error::ApiError;
use crate::pod::Pod;

/// Everything that the pod answers.
pub fn router(pod: Arc<Pod>) -> Router {
    // Routes that lead to the network: bounded in time and counted.
    let watched = || from_fn_with_state(pod.clone(), watch::bounded_and_counted);
    let counted = || from_fn_with_state(pod.clone(), credit::kept);
    let inference =
        Router::new().route("/v1/embeddings", post(openai::embeddings)).layer(counted()).layer(watched());
    let plain = Router::new()
        .route("/", get(plain::content))
        .route("/get_vector_simple", get(plain::sentence))
        .route("/get_vector_async", get(plain::sentence))
        .layer(counted())
        .layer(watched())
        // A browser's question whether it may ask, which the layer answers.
        .route("/", options(method_not_allowed))
        .route("/get_vector_simple", options(method_not_allowed))
        .route("/get_vector_async", options(method_not_allowed))
        .layer(plain::cors());
    let tei = Router::new()
        .route("/", post(tei::root))
        .route("/embed", post(tei::embed))
        .route("/embed_all", post(tei::embed_all))
        .route("/similarity", post(tei::similarity))
        .route("/rerank", post(scores::rerank))
        .route("/predict", post(scores::predict))
        .route("/tokenize", post(tei::tokenize))
        .route("/decode", post(tei::decode))
        .layer(counted())
        .layer(watched())
        .route("/health", get(health::health))
        .layer(map_response(tei_error::in_teis_form));
    Router::new()
        .route("/v1/models", get(openai::models))
        .route(INFO_PATH, get(info::info))
        .route(LIVE_PATH, get(health::live))
        .route(READY_PATH, get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(pages::openapi))
        .route("/ui", get(pages::ui))
        .merge(inference)
        .merge(plain)
        .merge(tei)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(pod)
}

/// Reads bytes as every body and query that there is, for fuzzing.
#[cfg(fuzzing)]
pub fn read_anything(bytes: &[u8]) {
    let _ = openai_body::parse(bytes);
    let _ = tei_body::parse::<tei_body::Embed>(bytes).map(crate::engine::Request::from);
    let _ = tei_body::parse::<tei_body::Similarity>(bytes).map(tei_body::Similarity::request);
    let _ = tei_body::parse::<tei_body::Tokenize>(bytes);
    let _ = tei_body::parse::<tei_body::Decode>(bytes);
    let _ = query::parameter(std::str::from_utf8(bytes).ok(), "content");
}

async fn not_found() -> ApiError {
    ApiError::not_found()
}

async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}
