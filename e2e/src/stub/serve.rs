//! What a stub answers.

use std::convert::Infallible;

use axum::{
    Json, Router,
    body::Bytes,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kembed_queue::{
    credit::{GRANTED_HEADER, NO_CREDIT_HEADER, POD_LOAD_HEADER},
    wire::{INFO_PATH, LIVE_PATH, READY_PATH, SHOULD_RETRY_HEADER, SPACE_HEADER},
};
use serde::Deserialize;
use serde_json::json;

use super::{DIGEST, Stub, VECTOR, tokens};

/// What clients ask to see whether somebody is there.
const MODELS_PATH: &str = "/v1/models";

const NO_CREDIT: [(HeaderName, HeaderValue); 2] = [
    (HeaderName::from_static(NO_CREDIT_HEADER), HeaderValue::from_static("true")),
    (HeaderName::from_static(SHOULD_RETRY_HEADER), HeaderValue::from_static("true")),
];

#[derive(Deserialize)]
struct Asked {
    input: Input,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

/// Where one listener may answer for several stubs: which of them a request is for.
pub(super) trait Stubs {
    fn asked(&self, parts: &Parts) -> Stub;
}

impl Stubs for Stub {
    fn asked(&self, _: &Parts) -> Stub {
        self.clone()
    }
}

impl<S: Stubs + Sync> FromRequestParts<S> for Stub {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, stubs: &S) -> Result<Self, Infallible> {
        Ok(stubs.asked(parts))
    }
}

/// Everything that stubs answer.
pub(super) fn router(stubs: impl Stubs + Clone + Send + Sync + 'static) -> Router {
    Router::new()
        .route(LIVE_PATH, get(async || "ok"))
        .route(READY_PATH, get(async |stub: Stub| stub.readiness()))
        .route(INFO_PATH, get(async |stub: Stub| stub.information()))
        .route(MODELS_PATH, get(models))
        .route("/v1/embeddings", post(embeddings))
        .with_state(stubs)
}

impl Stub {
    /// Everything that it answers.
    pub fn router(self) -> Router {
        router(self)
    }

    /// The answer to `POST /v1/embeddings`, when it would be there.
    async fn embed(&self, headers: &HeaderMap, body: &[u8]) -> Response {
        let granted = headers.contains_key(GRANTED_HEADER);
        if granted && self.batches.in_hand() >= 2 * self.credit() {
            return (StatusCode::SERVICE_UNAVAILABLE, NO_CREDIT, self.told(0)).into_response();
        }
        let Ok(Asked { input }) = serde_json::from_slice(body) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let texts = match input {
            Input::One(text) => vec![text],
            Input::Many(texts) => texts,
        };
        let work = texts.iter().map(|text| tokens(text)).sum();
        self.batches.compute(work).await;
        let data = (0..texts.len())
            .map(|index| json!({"object": "embedding", "index": index, "embedding": VECTOR}))
            .collect::<Vec<_>>();
        let usage = json!({"prompt_tokens": work, "total_tokens": work});
        let answer = json!({"object": "list", "data": data, "model": "stub", "usage": usage});
        ([(SPACE_HEADER, DIGEST)], self.told(work), Json(answer)).into_response()
    }

    fn readiness(&self) -> StatusCode {
        if self.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn information(&self) -> Response {
        if self.is_ready() { Json(self.info()).into_response() } else { self.readiness().into_response() }
    }

    fn told(&self, work: u64) -> [(&'static str, String); 1] {
        [(POD_LOAD_HEADER, self.load(work).to_string())]
    }
}

async fn models() -> Json<serde_json::Value> {
    Json(json!({"object": "list", "data": [{"id": "stub", "object": "model"}]}))
}

async fn embeddings(stub: Stub, headers: HeaderMap, body: Bytes) -> Response {
    stub.embed(&headers, &body).await
}
