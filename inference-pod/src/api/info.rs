//! `GET /info`: the model and its space, from when it is loaded.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use kembed_queue::wire;
use serde::Serialize;

use super::ApiError;
use crate::{engine::Engine, pod::Pod, pooling::Pooling};

/// What kembed's programs read, and beside it what clients of text-embeddings-inference do.
#[derive(Serialize)]
struct Info<'a> {
    #[serde(flatten)]
    info: wire::Info,
    served_model_name: &'a str,
    /// What the network's products are made of; vectors are of 32-bit floats.
    model_dtype: &'static str,
    model_type: ModelType<'a>,
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
#[serde(rename_all = "lowercase")]
enum ModelType<'a> {
    Embedding {
        pooling: &'static str,
    },
    /// It has several labels.
    Classifier(Labels<'a>),
    /// It has one: how well two texts go together.
    Reranker(Labels<'a>),
}

/// The labels' names, and their places.
#[derive(Serialize)]
struct Labels<'a> {
    id2label: BTreeMap<usize, &'a str>,
    label2id: BTreeMap<&'a str, usize>,
}

impl<'a> ModelType<'a> {
    fn of(engine: &'a Engine) -> Self {
        let Some(names) = engine.labels() else {
            return Self::Embedding { pooling: word(engine.pooling()) };
        };
        let names = names.iter().map(String::as_str);
        let labels =
            Labels { id2label: names.clone().enumerate().collect(), label2id: names.zip(0..).collect() };
        match labels.id2label.len() {
            1 => Self::Reranker(labels),
            _ => Self::Classifier(labels),
        }
    }
}

/// `GET /info`
pub(super) async fn info(State(pod): State<Arc<Pod>>) -> Result<Response, ApiError> {
    let not_ready = || ApiError::not_ready(pod.ready().err().unwrap_or_default());
    let (info, engine) = pod.info().zip(pod.engine()).ok_or_else(not_ready)?;
    let limits = engine.limits();
    let info = Info {
        info,
        served_model_name: &pod.name,
        model_dtype: engine.numbers().name(),
        model_type: ModelType::of(engine),
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
