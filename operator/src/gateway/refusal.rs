//! Every answer that the gateway gives itself instead of a pod's, in the form that OpenAI clients read.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};
use kembed_queue::wire::SHOULD_RETRY_HEADER;
use serde::Serialize;

use super::{availability::Unavailable, name::ServiceName};

/// How the addresses of services look.
const URL_FORMS: &str = "ask http://<name>.<namespace>.svc/v1/embeddings, or this gateway at \
    /<namespace>/<name>/v1/embeddings, or at /v1/embeddings with \"model\": \"<namespace>/<name>\"; \
    GET /v1/models lists what there is";

/// Why a request gets no answer from a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The gateway has just started and does not know the services yet.
    Starting,
    /// Neither host nor path belong to a service or to the gateway.
    UnknownUrl {
        /// The service that the path names, where it has the form of one.
        asked: Option<ServiceName>,
    },
    /// The body's `model` is no service.
    UnknownModel {
        /// What it says.
        model: String,
    },
    /// More than one `Host` header.
    TwoHosts,
    /// The path is the gateway's own and has no such method.
    MethodNotAllowed {
        /// The methods it has.
        allow: &'static str,
    },
    /// A body that has to name its model is not a JSON object that does.
    MalformedBody {
        /// Line of the first fault.
        line: usize,
        /// Column of the first fault.
        column: usize,
    },
    /// A body that has to name its model broke off.
    BrokenBody,
    /// A body that has to name its model did not arrive in time.
    SlowBody {
        /// Time it had.
        limit: Duration,
    },
    /// A body that has to name its model is larger than the gateway keeps in memory.
    BodyTooLarge {
        /// Bytes it may have.
        limit: usize,
    },
    /// The service has no pod that may answer.
    Unavailable(Unavailable),
    /// No pod of the service accepted a connection; nothing was sent.
    Unreachable {
        /// Pods that were tried.
        tried: usize,
    },
    /// The connection to a pod broke after the request was sent and before it answered.
    PodFailed,
    /// A pod did not answer in time.
    TimedOut {
        /// Time it had.
        limit: Duration,
    },
}

/// Whether a client should send the same request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// It would be refused again.
    No,
    /// At its own pace.
    Yes,
    /// Not before so many seconds.
    After(u32),
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    message: String,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'a str,
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownUrl { .. } | Self::UnknownModel { .. } => StatusCode::NOT_FOUND,
            Self::TwoHosts | Self::MalformedBody { .. } | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Starting | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. } | Self::PodFailed => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "gateway_starting",
            Self::UnknownUrl { .. } => "unknown_url",
            Self::UnknownModel { .. } => "model_not_found",
            Self::TwoHosts => "two_hosts",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::MalformedBody { .. } => "malformed_body",
            Self::BrokenBody => "broken_body",
            Self::SlowBody { .. } => "slow_body",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::Unavailable(_) => "unavailable",
            Self::Unreachable { .. } => "pod_unreachable",
            Self::PodFailed => "pod_failed",
            Self::TimedOut { .. } => "timeout",
        }
    }

    /// The whole answer.
    pub fn into_response(self) -> Response<Bytes> {
        let body = serde_json::to_vec(&ErrorBody {
            error: ErrorFields {
                message: self.message(),
                r#type: if self.status().is_client_error() {
                    "invalid_request_error"
                } else {
                    "server_error"
                },
                param: matches!(self, Self::UnknownModel { .. }).then_some("model"),
                code: self.code(),
            },
        });
        let mut response = Response::new(Bytes::from(body.expect("strings always serialise")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let retry = self.retry();
        let should = if retry == Retry::No { "false" } else { "true" };
        headers.insert(SHOULD_RETRY_HEADER, HeaderValue::from_static(should));
        if let Retry::After(seconds) = retry {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::MethodNotAllowed { allow } = self {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }

    /// The word for programs: where the service's conditions give the reason, that.
    fn code(&self) -> &str {
        match self {
            Self::Unavailable(unavailable) => &unavailable.reason,
            other => other.label(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(unavailable) if !unavailable.transient => Retry::No,
            // About the time that a pod with its model at hand takes to start.
            Self::Unavailable(_) => Retry::After(5),
            Self::Starting | Self::Unreachable { .. } => Retry::After(1),
            // Embedding the same text again does no harm.
            Self::PodFailed | Self::TimedOut { .. } | Self::SlowBody { .. } => Retry::Yes,
            _ => Retry::No,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Starting => {
                "this gateway has just started and does not know the EmbeddingServices yet".to_owned()
            }
            Self::UnknownUrl { asked: Some(asked) } => format!(
                "there is no EmbeddingService {:?} in namespace {:?}: {URL_FORMS}",
                asked.name(),
                asked.namespace()
            ),
            Self::UnknownUrl { asked: None } => {
                format!("no EmbeddingService answers at this URL: {URL_FORMS}")
            }
            Self::UnknownModel { model } => format!(
                "the model {model:?} is no EmbeddingService here: write \"<namespace>/<name>\", as listed by \
                 GET /v1/models"
            ),
            Self::TwoHosts => "a request must have one Host header".to_owned(),
            Self::MethodNotAllowed { allow } => format!("this URL takes {allow} only"),
            Self::MalformedBody { line, column } => format!(
                "the body must be a JSON object with \"model\": \"<namespace>/<name>\"; it fails at line {line}, \
                 column {column}"
            ),
            Self::BrokenBody => "the body of the request broke off".to_owned(),
            Self::SlowBody { limit } => format!("the body of the request did not arrive within {limit:?}"),
            Self::BodyTooLarge { limit } => format!(
                "a request that names its model in the body may have {limit} bytes: send fewer inputs at once, or \
                 name the service in the URL, where the gateway sets no limit"
            ),
            Self::Unavailable(unavailable) => unavailable.message.clone(),
            Self::Unreachable { tried: 1 } => {
                "the service's only ready pod refused the connection".to_owned()
            }
            Self::Unreachable { tried } => {
                format!("none of the service's {tried} ready pods accepted a connection")
            }
            Self::PodFailed => {
                "the pod that had this request closed its connection before it answered".to_owned()
            }
            Self::TimedOut { limit } => format!(
                "no answer within {limit:?}: send fewer inputs at once, or raise spec.traffic.requestTimeout of the \
                 EmbeddingService"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(refusal: Refusal) -> (u16, Option<String>, Option<String>, Value) {
        let response = refusal.into_response();
        let header = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().expect("our own text").to_owned())
        };
        let body = serde_json::from_slice(response.body()).expect("our own JSON");
        (response.status().as_u16(), header("x-should-retry"), header("retry-after"), body)
    }

    #[test]
    fn the_body_is_what_openai_clients_read() {
        let (status, retry, after, body) = answer(Refusal::UnknownModel { model: "m\"x".to_owned() });
        assert_eq!((status, retry.as_deref(), after), (404, Some("false"), None));
        assert_eq!(
            body,
            json!({"error": {
                "message": "the model \"m\\\"x\" is no EmbeddingService here: write \"<namespace>/<name>\", as listed \
                            by GET /v1/models",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }})
        );
    }

    #[test]
    fn an_unavailable_service_gives_the_reason_of_its_condition() {
        let unavailable = |transient| {
            Refusal::Unavailable(Unavailable {
                reason: "Unschedulable".to_owned(),
                message: "no node has nvidia.com/gpu free".to_owned(),
                transient,
            })
        };
        let (status, retry, after, body) = answer(unavailable(true));
        assert_eq!((status, retry.as_deref(), after.as_deref()), (503, Some("true"), Some("5")));
        assert_eq!(body["error"]["code"], "Unschedulable");
        assert_eq!(body["error"]["message"], "no node has nvidia.com/gpu free");
        assert_eq!(body["error"]["type"], "server_error");
        let (status, retry, after, _) = answer(unavailable(false));
        assert_eq!((status, retry.as_deref(), after), (503, Some("false"), None));
    }

    #[test]
    fn statuses_and_whether_to_try_again() {
        let second = Duration::from_secs(1);
        for (refusal, status, retry) in [
            (Refusal::Starting, 503, "true"),
            (Refusal::UnknownUrl { asked: None }, 404, "false"),
            (Refusal::TwoHosts, 400, "false"),
            (Refusal::MethodNotAllowed { allow: "POST" }, 405, "false"),
            (Refusal::MalformedBody { line: 1, column: 2 }, 400, "false"),
            (Refusal::BrokenBody, 400, "false"),
            (Refusal::SlowBody { limit: second }, 408, "true"),
            (Refusal::BodyTooLarge { limit: 1 }, 413, "false"),
            (Refusal::Unreachable { tried: 2 }, 502, "true"),
            (Refusal::PodFailed, 502, "true"),
            (Refusal::TimedOut { limit: second }, 504, "true"),
        ] {
            let (code, label) = (refusal.status().as_u16(), refusal.label());
            let answered = answer(refusal);
            assert_eq!((answered.0, answered.1.as_deref()), (status, Some(retry)), "{label}");
            assert_eq!((code, answered.3["error"]["code"].as_str()), (status, Some(label)), "{label}");
        }
    }

    #[test]
    fn an_unknown_url_names_the_right_ones() {
        let (_, _, _, body) = answer(Refusal::UnknownUrl { asked: ServiceName::new("team", "minil") });
        let message = body["error"]["message"].as_str().expect("a text");
        assert!(
            message.starts_with("there is no EmbeddingService \"minil\" in namespace \"team\""),
            "{message}"
        );
        for form in
            ["http://<name>.<namespace>.svc/v1/embeddings", "/<namespace>/<name>/v1/", "GET /v1/models"]
        {
            assert!(message.contains(form), "{message}");
        }
    }

    #[test]
    fn a_method_that_is_not_allowed_names_those_that_are() {
        let response = Refusal::MethodNotAllowed { allow: "POST" }.into_response();
        assert_eq!(response.headers().get(ALLOW), Some(&HeaderValue::from_static("POST")));
    }
}
