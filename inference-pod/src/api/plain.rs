//! The plain way: a text in the query, a vector in the answer.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use kembed_queue::wire::SPACE_HEADER;
use serde::Serialize;

use super::{ApiError, query::parameter};
use crate::{
    engine::{Input, Request},
    pod::Pod,
};

#[derive(Serialize)]
struct Answer {
    vector: Vec<f32>,
}

/// `GET /?content=`
pub(super) async fn content(
    State(pod): State<Arc<Pod>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    embed(&pod, query.as_deref(), "content").await
}

/// `GET /get_vector_simple?sentence=`
pub(super) async fn sentence(
    State(pod): State<Arc<Pod>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    embed(&pod, query.as_deref(), "sentence").await
}

async fn embed(pod: &Pod, query: Option<&str>, name: &'static str) -> Result<Response, ApiError> {
    let text = parameter(query, name).map_err(|e| ApiError::bad_request(e).of(name))?;
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let _permit = serving.engine.admit()?;
    let request = Request { inputs: vec![Input::Text(text)], ..Request::default() };
    let mut embeddings = serving.engine.embed(request.without_empty_texts()?).await?;
    let vector = embeddings.vectors.pop().unwrap_or_default();
    Ok(([(SPACE_HEADER, serving.space.digest.as_str())], Json(Answer { vector })).into_response())
}
