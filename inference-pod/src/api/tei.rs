//! The way of text-embeddings-inference: `POST /embed`, `/embed_all` and `/similarity`, `/tokenize` and `/decode`.
//! `scores` has what models that classify answer.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    ApiError,
    answer::{in_space, json},
    aside::aside,
    read::{Received, read, receive},
    scores,
    tei_body::{Decode, Embed, EmbedAll, Similarity, Tokenize, parse},
};
use crate::{
    engine::{EmbedError, Engine, Request},
    in_hand::Held,
    pod::{Pod, Serving},
    tokenise::Token,
    vector::dot,
};

/// Bytes of a body for `/tokenize` and `/decode`, whose answers are much larger.
const TOKENS_BODY: usize = 256 * 1024;

/// Bytes that are made of each byte of such a body: a token can be of one byte, and takes some 90 in the answer.
const PER_BYTE: usize = 96;

/// `POST /`: what the model is there for.
pub(super) async fn root(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    match pod.engine().and_then(Engine::labels).map(<[_]>::len) {
        None => embed(State(pod), headers, body).await,
        Some(1) => scores::rerank(State(pod), headers, body).await,
        Some(_) => scores::predict(State(pod), headers, body).await,
    }
}

/// `POST /embed`
pub(super) async fn embed(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let read = |bytes: &[u8]| parse::<Embed>(bytes).map(Request::from).map_err(ApiError::bad_request);
    let (serving, vectors, held) = vectors(&pod, &headers, body, read).await?;
    in_space(&pod, serving, &vectors, held)
}

/// `POST /embed_all`: the vectors of all tokens.
pub(super) async fn embed_all(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Received { terms, serving, mut held, bytes } = receive(&pod, &headers, body).await?;
    let request = aside(bytes.len(), || parse::<EmbedAll>(&bytes)).map_err(ApiError::bad_request)?;
    let request = Request::from(request);
    drop(bytes);
    let request = request.without_empty_texts()?;
    let vectors = serving.engine.embed_every_token_in(terms, &mut held, request).await?;
    in_space(&pod, serving, &vectors, held)
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
    let (serving, vectors, held) = vectors(&pod, &headers, body, read).await?;
    // There are two at least.
    let (first, others) = vectors.split_first().ok_or(EmbedError::Failed)?;
    let cosines: Vec<f32> = others.iter().map(|other| dot(first, other)).collect();
    in_space(&pod, serving, &cosines, held)
}

async fn vectors<'a>(
    pod: &'a Pod,
    headers: &HeaderMap,
    body: Body,
    request: impl FnOnce(&[u8]) -> Result<Request, ApiError>,
) -> Result<(&'a Serving, Vec<Vec<f32>>, Held), ApiError> {
    let Received { terms, serving, mut held, bytes } = receive(pod, headers, body).await?;
    let request = aside(bytes.len(), || request(&bytes))?;
    drop(bytes);
    serving.engine.make_room(&mut held, &request)?;
    let embeddings = serving.engine.embed_in(terms, &mut held, request.without_empty_texts()?).await?;
    Ok((serving, embeddings.vectors, held))
}

#[derive(Serialize)]
struct Piece {
    id: u32,
    text: String,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

/// Takes a request in hand that is about tokens, and makes room for its answer.
async fn about_tokens<T: DeserializeOwned>(pod: &Pod, body: Body) -> Result<(T, &Serving, Held), ApiError> {
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let mut held = serving.engine.admit()?;
    let bytes = read(body, pod.limits.body.min(TOKENS_BODY), &mut held).await?;
    held.grow(bytes.len() * PER_BYTE).map_err(EmbedError::from)?;
    let asked = aside(bytes.len(), || parse(&bytes)).map_err(ApiError::bad_request)?;
    Ok((asked, serving, held))
}

/// `POST /tokenize`
pub(super) async fn tokenize(State(pod): State<Arc<Pod>>, body: Body) -> Result<Response, ApiError> {
    let (asked, serving, held) = about_tokens(&pod, body).await?;
    let Tokenize { inputs, add_special_tokens, prompt_name } = asked;
    let special = add_special_tokens.unwrap_or(true);
    let tokens = serving.engine.tokens(inputs.into(), prompt_name.as_deref(), special).await?;
    let pieces: Vec<Vec<Piece>> =
        tokens.into_iter().map(|tokens| tokens.into_iter().map(piece).collect()).collect();
    json(&pod, &pieces, held)
}

fn piece(token: Token) -> Piece {
    let Token { id, text, bytes } = token;
    let (start, stop) = bytes.unzip();
    Piece { id, text, special: bytes.is_none(), start, stop }
}

/// `POST /decode`
pub(super) async fn decode(State(pod): State<Arc<Pod>>, body: Body) -> Result<Response, ApiError> {
    let (Decode { ids, skip_special_tokens }, serving, held) = about_tokens(&pod, body).await?;
    let texts = serving.engine.texts(ids.into(), skip_special_tokens.unwrap_or(true)).await?;
    json(&pod, &texts, held)
}
