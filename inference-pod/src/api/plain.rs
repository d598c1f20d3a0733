//! The plain way: a text in the query, a vector in the answer. Pages of any origin may ask so from a browser.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, Method, header::RETRY_AFTER},
    response::Response,
};
use kembed_queue::wire::SPACE_HEADER;
use serde::Serialize;
use tower_http::cors::{Any, CorsLayer};

use super::{ApiError, answer::in_space, query::parameter, terms::terms};
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
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    embed(&pod, query.as_deref(), "content", &headers).await
}

/// `GET /get_vector_simple?sentence=` and `GET /get_vector_async?sentence=`: the second is an older name for the same.
pub(super) async fn sentence(
    State(pod): State<Arc<Pod>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    embed(&pod, query.as_deref(), "sentence", &headers).await
}

/// Any origin may read an answer: there are no cookies that could be misused, and who may ask at all is the network's
/// to say. A browser may keep that for a day.
pub(super) fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET])
        .allow_headers(Any)
        .expose_headers([HeaderName::from_static(SPACE_HEADER), RETRY_AFTER])
        .max_age(Duration::from_secs(24 * 60 * 60))
}

async fn embed(
    pod: &Pod,
    query: Option<&str>,
    name: &'static str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let terms = terms(headers)?;
    let text = parameter(query, name).map_err(|e| ApiError::bad_request(e).of(name))?;
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let mut held = serving.engine.admit()?;
    let request = Request { inputs: vec![Input::Text(text)], ..Request::default() };
    serving.engine.make_room(&mut held, &request)?;
    let mut embeddings = serving.engine.embed_in(terms, &mut held, request.without_empty_texts()?).await?;
    let vector = embeddings.vectors.pop().unwrap_or_default();
    in_space(pod, serving, &Answer { vector }, held)
}
