//! Every answer that the gateway gives itself instead of a pod's, in the form that OpenAI clients read.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use kembed_queue::{History, wire::SHOULD_RETRY_HEADER};
use serde::Serialize;

use super::{
    availability::Unavailable,
    hop::{self, ANOTHER, HISTORY_HEADER, MOVED_HEADER},
    keys::{Limit, Limited},
    name::ServiceName,
};

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
    /// No service is found, and some are there for holders of a key alone.
    InvalidApiKey {
        /// Whether there was a key, which opens nothing.
        shown: bool,
    },
    /// The key may not send so much.
    RateLimited(Limited),
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
    /// The gateway holds as many bodies as it has room for.
    Overloaded,
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
    /// A body for which a service would have to be woken is not JSON.
    NotJson {
        /// Line of the first fault.
        line: usize,
        /// Column of the first fault.
        column: usize,
    },
    /// As many requests wait for the service as may.
    QueueFull {
        /// Seconds after which there should be room.
        after: u64,
    },
    /// What waits for the service takes longer than the request may wait.
    TooLate {
        /// How long that takes.
        wait: Duration,
        /// Seconds after which there should be room.
        after: u64,
    },
    /// No pod took the request in the time that the service lets it wait.
    Expired {
        /// How long it waited.
        waited: Duration,
        /// Why no pod may answer, if none may.
        why: Option<Unavailable>,
    },
    /// No pod took the request before its client's deadline.
    DeadlinePassed {
        /// How long it waited.
        waited: Duration,
    },
    /// The service has no pod, and without the API server none can be made.
    ActivationUnavailable,
    /// Two pods died while they had the request, the second with no other.
    PodsDied,
    /// The request wants vectors of another space.
    OtherSpace {
        /// The space that the service has.
        recorded: String,
    },
    /// The gateway ends, and cannot hold the request any longer.
    Closing,
    /// Another gateway owns the service. Gateways hear of it; no client does.
    Moved {
        /// Which, if that is known.
        to: Option<String>,
        /// What the request went through here, if it was let in.
        history: Option<History>,
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
    After(u64),
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
            Self::TwoHosts | Self::MalformedBody { .. } | Self::NotJson { .. } | Self::BrokenBody => {
                StatusCode::BAD_REQUEST
            }
            Self::InvalidApiKey { .. } => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::OtherSpace { .. } => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited(_) | Self::QueueFull { .. } | Self::TooLate { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unreachable { .. } | Self::PodFailed | Self::PodsDied => StatusCode::BAD_GATEWAY,
            Self::Starting | Self::Overloaded | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Expired { .. } | Self::ActivationUnavailable | Self::Closing | Self::Moved { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TimedOut { .. } | Self::DeadlinePassed { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "gateway_starting",
            Self::UnknownUrl { .. } => "unknown_url",
            Self::UnknownModel { .. } => "model_not_found",
            Self::InvalidApiKey { .. } => "invalid_api_key",
            Self::RateLimited(_) => "rate_limit_exceeded",
            Self::TwoHosts => "two_hosts",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::MalformedBody { .. } | Self::NotJson { .. } => "malformed_body",
            Self::BrokenBody => "broken_body",
            Self::SlowBody { .. } => "slow_body",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::Overloaded => "gateway_overloaded",
            Self::Unavailable(_) => "unavailable",
            Self::Unreachable { .. } => "pod_unreachable",
            Self::PodFailed => "pod_failed",
            Self::TimedOut { .. } => "timeout",
            Self::QueueFull { .. } => "queue_full",
            Self::TooLate { .. } => "deadline_too_soon",
            Self::Expired { .. } => "queue_timeout",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::ActivationUnavailable => "ActivationUnavailable",
            Self::PodsDied => "pods_died",
            Self::OtherSpace { .. } => "space_mismatch",
            Self::Closing => "gateway_stopping",
            Self::Moved { .. } => "moved",
        }
    }

    /// The whole answer.
    pub fn into_response(self) -> Response<Bytes> {
        let body = serde_json::to_vec(&ErrorBody {
            error: ErrorFields {
                message: self.message(),
                r#type: self.kind(),
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
        match self {
            Self::MethodNotAllowed { allow } => drop(headers.insert(ALLOW, HeaderValue::from_static(allow))),
            Self::InvalidApiKey { .. } => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Moved { to, history } => {
                let another = HeaderValue::from_static(ANOTHER);
                let to = to.and_then(|to| HeaderValue::try_from(to).ok()).unwrap_or(another);
                headers.insert(MOVED_HEADER, to);
                if let Some(history) = history {
                    headers.insert(HISTORY_HEADER, hop::value(history));
                }
            }
            _ => (),
        }
        response
    }

    /// The kind of error, as OpenAI tells it.
    fn kind(&self) -> &'static str {
        match self {
            Self::RateLimited(Limited { what: Limit::Requests(_), .. }) => "requests",
            Self::RateLimited(Limited { what: Limit::Tokens(_), .. }) => "tokens",
            _ if self.status().is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The word for programs: where the service's conditions give the reason, that.
    fn code(&self) -> &str {
        match self {
            Self::Unavailable(why) | Self::Expired { why: Some(why), .. } => &why.reason,
            other => other.label(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(unavailable) if !unavailable.transient => Retry::No,
            // About the time that a pod with its model at hand takes to start.
            Self::Unavailable(_) | Self::Expired { .. } | Self::ActivationUnavailable => Retry::After(5),
            Self::QueueFull { after } | Self::TooLate { after, .. } => Retry::After(*after),
            Self::Starting | Self::Overloaded | Self::Closing | Self::Unreachable { .. } => Retry::After(1),
            Self::Moved { .. } => Retry::After(1),
            Self::RateLimited(limited) => Retry::After(whole_seconds(limited.wait)),
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
                "there is no EmbeddingService {:?} in namespace {:?} that this request may use: {URL_FORMS}",
                asked.name(),
                asked.namespace()
            ),
            Self::UnknownUrl { asked: None } => {
                format!("no EmbeddingService answers at this URL: {URL_FORMS}")
            }
            Self::UnknownModel { model } => format!(
                "the model {model:?} is no EmbeddingService that this request may use: write \
                 \"<namespace>/<name>\", as listed by GET /v1/models"
            ),
            Self::InvalidApiKey { shown } => format!(
                "no EmbeddingService is open to this request: {}, as \"Authorization: Bearer <key>\"; or else {URL_FORMS}",
                if *shown { "its API key is not known here: send another one" } else { "send an API key" }
            ),
            Self::RateLimited(Limited { what, wait }) => {
                let limit = match what {
                    Limit::Requests(limit) => format!("{limit} requests a second"),
                    Limit::Tokens(limit) => format!("{limit} tokens a minute"),
                };
                // Rounded up: after 0.0 s it would be refused again.
                let tenths = wait.as_millis().div_ceil(100);
                format!(
                    "the limit of this API key is {limit}: try again in {}.{} s",
                    tenths / 10,
                    tenths % 10
                )
            }
            Self::TwoHosts => "a request must have one Host header".to_owned(),
            Self::MethodNotAllowed { allow } => format!("this URL takes {allow} only"),
            Self::MalformedBody { line, column } => format!(
                "neither host nor path is that of an EmbeddingService, so that the body must be a JSON object with \
                 \"model\": \"<namespace>/<name>\"; it fails at line {line}, column {column}"
            ),
            Self::BrokenBody => "the body of the request broke off".to_owned(),
            Self::SlowBody { limit } => format!("the body of the request did not arrive within {limit:?}"),
            Self::BodyTooLarge { limit } => {
                format!("the body of a request may have {limit} bytes: send fewer inputs at once")
            }
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
            Self::NotJson { line, column } => {
                format!("the body is not JSON: it fails at line {line}, column {column}")
            }
            Self::Overloaded => "this gateway has no room for another request's body just now".to_owned(),
            Self::QueueFull { .. } => "as many requests wait for this EmbeddingService already as \
                 spec.traffic.maxQueuedRequests and the gateway's memory allow"
                .to_owned(),
            Self::TooLate { wait, .. } => format!(
                "what waits for this EmbeddingService takes about {}, which is longer than this request may wait",
                seconds(*wait)
            ),
            Self::Expired { waited, why: Some(why) } => {
                // Some of what others say ends with a full stop, and some does not.
                let why = why.message.trim_end_matches('.');
                format!("{why}. This request waited {} for a pod", seconds(*waited))
            }
            Self::Expired { waited, why: None } => format!(
                "no pod took this request within {}: all are busy, or do not answer; add pods, or raise \
                 spec.traffic.queueTimeout of the EmbeddingService",
                seconds(*waited)
            ),
            Self::DeadlinePassed { waited } => {
                format!("no pod took this request before its deadline; it waited {}", seconds(*waited))
            }
            Self::ActivationUnavailable => {
                "the EmbeddingService has no pod, and none can be started: the Kubernetes API does not answer"
                    .to_owned()
            }
            Self::PodsDied => {
                "two pods of the EmbeddingService died while they had this request, the second one \
                 with no other: do not send it again"
                    .to_owned()
            }
            Self::OtherSpace { recorded } => {
                format!(
                    "this request wants another vector space than the one of the EmbeddingService, {recorded}"
                )
            }
            Self::Closing => "this gateway ends before a pod could take this request".to_owned(),
            Self::Moved { .. } => {
                "another gateway keeps the requests that wait for this EmbeddingService now".to_owned()
            }
        }
    }
}

/// As in a message.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// As `Retry-After` has them. Clients do not wait longer than a minute for one answer.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).clamp(1, 60)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::documentation::{GATEWAY, rows};

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
                "message": "the model \"m\\\"x\" is no EmbeddingService that this request may use: write \
                            \"<namespace>/<name>\", as listed by GET /v1/models",
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
    fn who_waited_in_vain_hears_what_stood_in_the_way() {
        let why = Unavailable {
            reason: "Unschedulable".to_owned(),
            message: "no node has nvidia.com/gpu free.".to_owned(),
            transient: true,
        };
        let (_, _, _, body) = answer(Refusal::Expired { waited: Duration::from_secs(600), why: Some(why) });
        assert_eq!(body["error"]["code"], "Unschedulable");
        assert_eq!(
            body["error"]["message"],
            "no node has nvidia.com/gpu free. This request waited 600.0 s for a pod"
        );
        let (_, _, after, _) = answer(Refusal::QueueFull { after: 7 });
        assert_eq!(after.as_deref(), Some("7"));
    }

    /// One of each.
    fn all() -> Vec<Refusal> {
        let second = Duration::from_secs(1);
        let unavailable = |transient| {
            let (reason, message) = ("unavailable".to_owned(), "no node has nvidia.com/gpu free".to_owned());
            Refusal::Unavailable(Unavailable { reason, message, transient })
        };
        vec![
            Refusal::TwoHosts,
            Refusal::MalformedBody { line: 1, column: 2 },
            Refusal::NotJson { line: 1, column: 2 },
            Refusal::BrokenBody,
            Refusal::InvalidApiKey { shown: true },
            Refusal::UnknownUrl { asked: None },
            Refusal::UnknownModel { model: "m".to_owned() },
            Refusal::MethodNotAllowed { allow: "POST" },
            Refusal::SlowBody { limit: second },
            Refusal::OtherSpace { recorded: "sha256:one".to_owned() },
            Refusal::BodyTooLarge { limit: 1 },
            Refusal::RateLimited(Limited { what: Limit::Requests(1), wait: second }),
            Refusal::QueueFull { after: 7 },
            Refusal::TooLate { wait: second, after: 7 },
            Refusal::Unreachable { tried: 2 },
            Refusal::PodFailed,
            Refusal::PodsDied,
            Refusal::Starting,
            Refusal::Overloaded,
            unavailable(true),
            unavailable(false),
            Refusal::Expired { waited: second, why: None },
            Refusal::ActivationUnavailable,
            Refusal::Closing,
            Refusal::Moved { to: None, history: None },
            Refusal::TimedOut { limit: second },
            Refusal::DeadlinePassed { waited: second },
        ]
    }

    #[test]
    fn statuses_and_whether_to_try_again_are_as_documented() {
        let rows = rows(GATEWAY, "Refusals");
        let told = all().into_iter().map(|refusal| {
            let label = refusal.label();
            let limited = refusal.status() == StatusCode::TOO_MANY_REQUESTS;
            let (status, retry, after, body) = answer(refusal);
            assert_eq!(body["error"]["code"], label);
            let after = if limited { Some("the wait, 1 to 60".to_owned()) } else { after };
            let after = after.map_or_else(|| " ".to_owned(), |after| format!(" {after} "));
            format!("| {status} | `{label}` | {} |{after}|", retry.expect("always told"))
        });
        let told: Vec<_> = told.collect();
        assert_eq!(rows.len(), told.len(), "each refusal has its row, and each row its refusal");
        for (row, told) in rows.iter().zip(told) {
            assert!(row.starts_with(&told), "{told} is documented as\n{row}");
        }
    }

    #[test]
    fn a_limited_key_is_told_when_it_may_send_again() {
        let told = |what, millis| {
            let (_, _, after, body) =
                answer(Refusal::RateLimited(Limited { what, wait: Duration::from_millis(millis) }));
            let text = |field: &str| body["error"][field].as_str().expect("a text").to_owned();
            (after.expect("a time"), text("type"), text("message"))
        };
        let (after, kind, message) = told(Limit::Requests(5), 200);
        assert_eq!((after.as_str(), kind.as_str()), ("1", "requests"));
        assert_eq!(message, "the limit of this API key is 5 requests a second: try again in 0.2 s");
        let (after, kind, message) = told(Limit::Tokens(60), 3_600_000);
        assert_eq!((after.as_str(), kind.as_str()), ("60", "tokens"));
        assert_eq!(message, "the limit of this API key is 60 tokens a minute: try again in 3600.0 s");
        assert_eq!(told(Limit::Tokens(60), 2_001).0, "3");
        assert!(told(Limit::Requests(50), 3).2.ends_with("try again in 0.1 s"));
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
