//! Refusals, in the form that OpenAI's clients read. `tei_error` has the other form.

use std::{ops::RangeInclusive, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use kembed_queue::{
    Refusal,
    wire::{NOT_READY_HEADER, SHOULD_RETRY_HEADER},
};
use serde::Serialize;

use crate::{batch::SubmitError, engine::EmbedError, tokenise::TokeniseError};

/// Characters of a message: what a client sent may be in it, and that can be long.
const MESSAGE: usize = 400;

/// Seconds after which a client should come again, at least, and if nothing is known: 1; and at most.
const RETRY_AFTER_SECONDS: RangeInclusive<u64> = 1..=60;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) reason: Reason,
    pub(super) message: String,
    /// The field of the request that is at fault.
    param: Option<&'static str>,
    /// How long what waits will take.
    wait: Duration,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It cannot be understood, or asks for what cannot be.
    Invalid,
    /// There is no input, or one with nothing in it.
    Empty,
    /// It has more inputs than one request may have.
    TooMany,
    /// An input is longer than the model takes.
    TooLong,
    /// The tokenizer cannot take an input.
    Untokenisable,
    /// The model does not do this.
    OtherModel,
    /// It will never fit: its body, its work, or its answer.
    TooLarge,
    /// There is no room now.
    Full,
    /// There is room, and no time: it would run after its deadline.
    Hopeless,
    /// A gateway sent more than the pod gives it credit for.
    NoCredit,
    /// The model is not there yet, or is the wrong one.
    NotReady,
    /// The pod is going down.
    Stopping,
    /// The time is over.
    TimedOut,
    /// The network failed.
    Failed,
    /// There is no such path.
    NotFound,
    /// The path takes another method.
    MethodNotAllowed,
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
    fn new(reason: Reason, message: impl ToString) -> Self {
        let message = message.to_string().chars().take(MESSAGE).collect();
        Self { reason, message, param: None, wait: Duration::ZERO }
    }

    /// The request cannot be understood.
    pub(super) fn bad_request(message: impl ToString) -> Self {
        Self::new(Reason::Invalid, message)
    }

    /// The same, and this field is at fault.
    pub(super) fn of(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    /// The body is over the limit.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(Reason::TooLarge, format!("the body of a request may have {limit} bytes"))
    }

    /// The pod cannot serve now, for this reason.
    pub(super) fn not_ready(why: impl ToString) -> Self {
        Self::new(Reason::NotReady, why)
    }

    /// A gateway sent more than the pod gives it credit for.
    pub(super) fn no_credit() -> Self {
        Self::new(Reason::NoCredit, "the pod has all the work that it gives gateways credit for")
    }

    /// The time is over.
    pub(super) fn too_late() -> Self {
        EmbedError::TooLate.into()
    }

    /// There is no such path.
    pub(super) fn not_found() -> Self {
        let message = "there is nothing here; /openapi.json lists what there is";
        Self::new(Reason::NotFound, message)
    }

    /// There is such a path, for another method.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(Reason::MethodNotAllowed, "this path takes another method")
    }
}

impl Reason {
    /// Status and code for OpenAI's clients.
    fn status_and_code(self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid | Self::Empty | Self::TooMany | Self::Untokenisable => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            Self::TooLong => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
            Self::OtherModel => (StatusCode::BAD_REQUEST, "unsupported_by_model"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large"),
            Self::Full => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Self::Hopeless => (StatusCode::TOO_MANY_REQUESTS, "deadline_too_soon"),
            Self::NoCredit => (StatusCode::SERVICE_UNAVAILABLE, "no_credit"),
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "network_failed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        }
    }

    /// One of a few words, for metrics: as OpenAI's clients are told.
    pub(super) fn code(self) -> &'static str {
        self.status_and_code().1
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        let (reason, param) = match &error {
            EmbedError::NoInput | EmbedError::Empty(_) => (Reason::Empty, Some("input")),
            EmbedError::TooMany { .. } => (Reason::TooMany, Some("input")),
            EmbedError::UnknownToken { .. } => (Reason::Invalid, Some("input")),
            EmbedError::TooLong { .. } | EmbedError::Tokenise(TokeniseError::TooLong { .. }) => {
                (Reason::TooLong, Some("input"))
            }
            EmbedError::Tokenise(TokeniseError::Text) => (Reason::Untokenisable, Some("input")),
            EmbedError::UnknownPrompt { .. } => (Reason::Invalid, Some("prompt_name")),
            EmbedError::Dimensions { .. } => (Reason::Invalid, Some("dimensions")),
            EmbedError::OtherModel(_) => (Reason::OtherModel, None),
            EmbedError::TooManyTokens { .. } => (Reason::TooLarge, None),
            EmbedError::Busy(_) => (Reason::Full, None),
            EmbedError::Submit(SubmitError::NoRoom { refusal, .. }) => match refusal {
                Refusal::Full { .. } => (Reason::Full, None),
                Refusal::TooLarge { .. } => (Reason::TooLarge, None),
            },
            EmbedError::Submit(SubmitError::Hopeless { .. }) => (Reason::Hopeless, None),
            EmbedError::Submit(SubmitError::Stopped) => (Reason::Stopping, None),
            EmbedError::TooLate => (Reason::TimedOut, None),
            EmbedError::Failed => (Reason::Failed, None),
        };
        let wait = match &error {
            EmbedError::Submit(SubmitError::NoRoom { wait, .. }) => wait.unwrap_or_default(),
            EmbedError::Submit(SubmitError::Hopeless { wait }) => *wait,
            _ => Duration::ZERO,
        };
        Self { param, wait, ..Self::new(reason, error) }
    }
}

/// A refusal with this body: with what clients need to know for trying again, and with the error itself beside it, for
/// a layer that writes it in another form.
pub(super) fn refusal(status: StatusCode, body: impl Serialize, error: ApiError) -> Response {
    let mut response = (status, Json(body)).into_response();
    let may_be_retried = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let retry = HeaderValue::from_static(if may_be_retried { "true" } else { "false" });
    response.headers_mut().insert(SHOULD_RETRY_HEADER, retry);
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, retry_after(error.wait));
    }
    if matches!(error.reason, Reason::NotReady | Reason::Stopping) {
        response.headers_mut().insert(NOT_READY_HEADER, HeaderValue::from_static("true"));
    }
    response.extensions_mut().insert(error);
    response
}

/// Rounded up, so that who comes then does not come too early.
fn retry_after(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.clamp(*RETRY_AFTER_SECONDS.start(), *RETRY_AFTER_SECONDS.end()).into()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.reason.status_and_code();
        let r#type = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let body = Body { error: Object { message: &self.message, r#type, param: self.param, code } };
        let body = serde_json::to_value(body).expect("words alone");
        refusal(status, body, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_cannot_be_kept_says_when_to_come() {
        let wait = Duration::from_millis(6500);
        let response = ApiError::from(EmbedError::from(SubmitError::Hopeless { wait })).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        assert_eq!(response.headers()[SHOULD_RETRY_HEADER], "true");
    }

    #[test]
    fn clients_are_told_to_come_when_what_waits_is_done() {
        for (millis, seconds) in [(0, "1"), (900, "1"), (1001, "2"), (7000, "7"), (600_000, "60")] {
            assert_eq!(retry_after(Duration::from_millis(millis)), seconds, "{millis}");
        }
    }
}
