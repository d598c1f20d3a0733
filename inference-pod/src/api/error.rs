//! Refusals, in the form that OpenAI's clients read.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use kembed_queue::{Refusal, wire::SHOULD_RETRY_HEADER};
use serde::Serialize;

use crate::engine::EmbedError;

/// Characters of a message: what a client sent may be in it, and that can be long.
const MESSAGE: usize = 400;

/// Seconds after which a client should come again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Object<'a>,
}

#[derive(Serialize)]
struct Object<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'static str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string().chars().take(MESSAGE).collect() }
    }

    /// The request cannot be understood.
    pub(super) fn bad_request(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The body is over the limit.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body of a request may have {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    /// The pod cannot serve now, for this reason.
    pub(super) fn not_ready(why: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why)
    }

    /// The time is over.
    pub(super) fn too_late() -> Self {
        EmbedError::TooLate.into()
    }

    /// There is no such path.
    pub(super) fn not_found() -> Self {
        let message = "there is nothing here; embeddings are made by POST /v1/embeddings";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// There is such a path, for another method.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes another method")
    }

    fn may_be_retried(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.status.is_server_error()
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        let (status, code) = match &error {
            EmbedError::NoInput
            | EmbedError::Empty(_)
            | EmbedError::TooMany { .. }
            | EmbedError::UnknownToken { .. }
            | EmbedError::TooLong { .. }
            | EmbedError::Dimensions { .. }
            | EmbedError::Tokenise(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            EmbedError::Busy(_) | EmbedError::Refused(Refusal::Full { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "queue_full")
            }
            EmbedError::Refused(Refusal::TooLarge { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large")
            }
            EmbedError::TooLate => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            EmbedError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            EmbedError::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "network_failed"),
        };
        Self::new(status, code, error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = Object { message: &self.message, r#type: self.kind(), param: None, code: self.code };
        let mut response = (self.status, Json(Body { error })).into_response();
        let retry = HeaderValue::from_static(if self.may_be_retried() { "true" } else { "false" });
        response.headers_mut().insert(SHOULD_RETRY_HEADER, retry);
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}
