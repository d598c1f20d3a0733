//! `GET /info`: the model and its space, from when it is loaded.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use kembed_queue::wire;
use serde::Serialize;

use super::ApiError;
use crate::{pod::Pod, pooling::Pooling};

/// What kembed's programs read, and beside it what clients of text-embeddings-inference do.
#[derive(Serialize)]
struct Info<'a> {
    #[serde(flatten)]
    info: wire::Info,
    served_model_name: &'a str,
    /// Of the vectors in answers.
    model_dtype: &'static str,
    model_type: ModelType,
    max_concurrent_requests: usize,
    max_batch_tokens: u64,
    max_batch_requests: usize,
    max_client_batch_size: usize,
    auto_truncate: bool,
    tokenization_workers: usize,
    /// Of the source code, which this program does not know.
    sha: Option<&'static str>,
    docker_label: Option<&'static str>,
}

#[derive(Serialize)]
struct ModelType {
    embedding: Embedding,
}

#[derive(Serialize)]
struct Embedding {
    pooling: &'static str,
}

/// `GET /info`
pub(super) async fn info(State(pod): State<Arc<Pod>>) -> Result<Response, ApiError> {
    let not_ready = || ApiError::not_ready(pod.ready().err().unwrap_or_default());
    let info = pod.info().ok_or_else(not_ready)?;
    let pooling = pod.pooling().map_or("mean", word);
    let limits = pod.limits;
    let info = Info {
        info,
        served_model_name: &pod.name,
        model_dtype: "float32",
        model_type: ModelType { embedding: Embedding { pooling } },
        max_concurrent_requests: limits.requests,
        max_batch_tokens: limits.batch.tokens,
        max_batch_requests: limits.batch.rows,
        max_client_batch_size: limits.inputs,
        auto_truncate: true,
        tokenization_workers: limits.tokenisers,
        sha: None,
        docker_label: None,
    };
    Ok(Json(info).into_response())
}

/// As text-embeddings-inference calls it; what that does not know is called as sentence-transformers calls it.
fn word(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
        Pooling::LastToken => "last_token",
        Pooling::Max => "max",
        Pooling::MeanSqrtLen => "mean_sqrt_len",
        Pooling::WeightedMean => "weighted_mean",
    }
}
