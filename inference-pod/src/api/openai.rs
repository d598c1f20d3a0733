//! OpenAI's way: `POST /v1/embeddings` and `GET /v1/models`.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    ApiError,
    answer::in_space,
    aside::aside,
    openai_body::{BodyError, Format, parse},
    read::{Received, receive},
};
use crate::pod::Pod;

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// `POST /v1/embeddings`
pub(super) async fn embeddings(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Received { terms, serving, mut held, bytes } = receive(&pod, &headers, body).await?;
    let (request, format) = aside(bytes.len(), || parse(&bytes))?;
    drop(bytes);
    serving.engine.make_room(&mut held, &request)?;
    let embeddings = serving.engine.embed_in(terms, &mut held, request.without_empty_texts()?).await?;
    let data = embeddings.vectors.into_iter().enumerate();
    let answer = Answer {
        object: "list",
        data: data.map(|(index, vector)| written(index, vector, format)).collect(),
        model: &pod.name,
        usage: Usage { prompt_tokens: embeddings.tokens, total_tokens: embeddings.tokens },
    };
    in_space(&pod, serving, &answer, held)
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let refusal = Self::bad_request(&error);
        match error.field {
            Some(field) => refusal.of(field),
            None => refusal,
        }
    }
}

fn written(index: usize, vector: Vec<f32>, format: Format) -> Embedding {
    let embedding = match format {
        Format::Float => Written::Floats(vector),
        Format::Base64 => {
            let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
            Written::Base64(BASE64_STANDARD.encode(bytes))
        }
    };
    Embedding { object: "embedding", index, embedding }
}

#[derive(Serialize)]
struct Models<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// `GET /v1/models`
pub(super) async fn models(State(pod): State<Arc<Pod>>) -> Response {
    let model = Model { id: &pod.name, object: "model", created: pod.created, owned_by: "kembed" };
    Json(Models { object: "list", data: [model] }).into_response()
}
