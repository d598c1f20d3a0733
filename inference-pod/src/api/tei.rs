//! The way of text-embeddings-inference: `POST /embed` and `/similarity`, `/tokenize` and `/decode`.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use kembed_queue::wire::SPACE_HEADER;
use serde::Serialize;

use super::{
    ApiError,
    read::read,
    tei_body::{Decode, Embed, Similarity, Tokenize, parse},
    terms::lane,
};
use crate::{
    engine::{EmbedError, Request},
    pod::{Pod, Serving},
    tokenise::Token,
    vector::dot,
};

/// Bytes of a body for `/tokenize` and `/decode`: an answer is up to a hundred times as large.
const TOKENS_BODY: usize = 256 * 1024;

/// `POST /embed`
pub(super) async fn embed(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let read = |bytes: &[u8]| parse::<Embed>(bytes).map(Request::from).map_err(ApiError::bad_request);
    let (serving, vectors) = vectors(&pod, &headers, body, read).await?;
    Ok(([(SPACE_HEADER, serving.space.digest.as_str())], Json(vectors)).into_response())
}

/// `POST /similarity`: the cosine of the first sentence and each of the others.
pub(super) async fn similarity(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let read = |bytes: &[u8]| {
        let similarity = parse::<Similarity>(bytes).map_err(ApiError::bad_request)?;
        similarity.request().ok_or(EmbedError::NoInput.into())
    };
    let (serving, vectors) = vectors(&pod, &headers, body, read).await?;
    // There are two at least.
    let (first, others) = vectors.split_first().ok_or(EmbedError::Failed)?;
    let cosines: Vec<f32> = others.iter().map(|other| dot(first, other)).collect();
    Ok(([(SPACE_HEADER, serving.space.digest.as_str())], Json(cosines)).into_response())
}

async fn vectors<'a>(
    pod: &'a Pod,
    headers: &HeaderMap,
    body: Body,
    request: impl FnOnce(&[u8]) -> Result<Request, ApiError>,
) -> Result<(&'a Serving, Vec<Vec<f32>>), ApiError> {
    let lane = lane(headers)?;
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let _permit = serving.engine.admit()?;
    let request = request(&read(body, pod.limits.body).await?)?;
    let embeddings = serving.engine.embed_in(lane, request.without_empty_texts()?).await?;
    Ok((serving, embeddings.vectors))
}

#[derive(Serialize)]
struct Piece {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// `POST /tokenize`
pub(super) async fn tokenize(State(pod): State<Arc<Pod>>, body: Body) -> Result<Response, ApiError> {
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let _permit = serving.engine.admit()?;
    let bytes = read(body, pod.limits.body.min(TOKENS_BODY)).await?;
    let Tokenize { inputs, add_special_tokens, prompt_name } =
        parse(&bytes).map_err(ApiError::bad_request)?;
    let special = add_special_tokens.unwrap_or(true);
    let tokens = serving.engine.tokens(inputs.into(), prompt_name.as_deref(), special).await?;
    let pieces: Vec<Vec<Piece>> =
        tokens.into_iter().map(|tokens| tokens.into_iter().map(piece).collect()).collect();
    Ok(Json(pieces).into_response())
}

fn piece(token: Token) -> Piece {
    let Token { id, text, bytes } = token;
    let (start, stop) = bytes.unzip();
    Piece { id, text, special: bytes.is_none(), start, stop }
}

/// `POST /decode`
pub(super) async fn decode(State(pod): State<Arc<Pod>>, body: Body) -> Result<Response, ApiError> {
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let _permit = serving.engine.admit()?;
    let bytes = read(body, pod.limits.body.min(TOKENS_BODY)).await?;
    let Decode { ids, skip_special_tokens } = parse(&bytes).map_err(ApiError::bad_request)?;
    let texts = serving.engine.texts(ids.into(), skip_special_tokens.unwrap_or(true)).await?;
    Ok(Json(texts).into_response())
}
