//! Refusals, in the form that clients of text-embeddings-inference read.

use axum::{http::StatusCode, response::Response};
use serde::Serialize;

use super::error::{ApiError, Reason, refusal};

#[derive(Serialize)]
struct Body {
    error: String,
    error_type: &'static str,
}

/// Writes an answer that is a refusal anew in this form. Any other passes.
pub(super) async fn in_teis_form(response: Response) -> Response {
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    let (status, error_type) = status_and_type(error.reason);
    refusal(status, Body { error: error.message.clone(), error_type }, error.clone())
}

/// As text-embeddings-inference documents them, but for one: it says 424 also for what is the server's own fault, which
/// no client tries again.
fn status_and_type(reason: Reason) -> (StatusCode, &'static str) {
    match reason {
        Reason::Empty => (StatusCode::BAD_REQUEST, "Empty"),
        Reason::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "Validation"),
        Reason::Untokenisable => (StatusCode::UNPROCESSABLE_ENTITY, "Tokenizer"),
        Reason::OtherModel => (StatusCode::FAILED_DEPENDENCY, "Backend"),
        Reason::TooLong | Reason::TooMany | Reason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Validation"),
        Reason::Full | Reason::Hopeless => (StatusCode::TOO_MANY_REQUESTS, "Overloaded"),
        Reason::NoCredit | Reason::NotReady | Reason::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, "Unhealthy")
        }
        Reason::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "Backend"),
        Reason::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "Backend"),
        Reason::NotFound => (StatusCode::NOT_FOUND, "Validation"),
        Reason::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Validation"),
    }
}
