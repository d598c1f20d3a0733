//! Which requests are for vectors, and on what terms. Only these wait for a pod, and only these wake a service.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, Method, uri::PathAndQuery};
use kembed_queue::{Past, wire::Lane};
use serde::de::IgnoredAny;

use super::{names, refusal::Refusal};

/// What is asked for by POST. `/tokenize` and `/decode` compute nothing on the accelerator, and are not worth waking it.
const POSTS: [&str; 9] = [
    "/v1/embeddings",
    "/",
    "/embed",
    "/embed_all",
    "/embed_sparse",
    "/similarity",
    "/rerank",
    "/v1/rerank",
    "/predict",
];

/// What is asked for by GET, with the parameter that holds the text.
const GETS: [(&str, &str); 3] =
    [("/", "content"), ("/get_vector_simple", "sentence"), ("/get_vector_async", "sentence")];

/// Whether this asks for vectors. Without a text it does not: `GET /` alone is how monitors look whether somebody is there.
pub fn is_inference(method: &Method, target: &PathAndQuery) -> bool {
    match *method {
        Method::POST => POSTS.contains(&target.path()),
        Method::GET => {
            let parameter = GETS.iter().find(|(path, _)| *path == target.path()).map(|(_, name)| *name);
            parameter.is_some_and(|name| has_text(target.query().unwrap_or_default(), name))
        }
        _ => false,
    }
}

fn has_text(query: &str, parameter: &str) -> bool {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.any(|(name, text)| name == parameter && !text.is_empty())
}

/// Looks whether the body of such a request may be one, before a service is woken for it.
///
/// # Errors
/// If it is not JSON.
pub fn look_over(method: &Method, body: &[u8]) -> Result<(), Refusal> {
    if *method != Method::POST {
        return Ok(());
    }
    // The message of serde_json would quote from the body.
    let read = serde_json::from_slice::<IgnoredAny>(body);
    read.map_err(|error| Refusal::NotJson { line: error.line(), column: error.column() }).map(drop)
}

/// What a client says beside its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Who goes first.
    pub lane: Lane,
    /// When it does not want the answer any more.
    pub deadline: Option<Instant>,
    /// The only space whose vectors it wants.
    pub space: Option<String>,
    /// What it went through at other gateways. Not the client's to say.
    pub past: Past,
}

impl Terms {
    /// Reads the headers of a request that comes now. What says nothing that is known is left to the pod to refuse.
    pub fn of(headers: &HeaderMap, now: Instant) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let patience = text(&names::DEADLINE).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        Self {
            lane: text(&names::LANE).and_then(Lane::parse).unwrap_or_default(),
            deadline: patience.and_then(|patience| now.checked_add(patience)),
            space: text(&names::SPACE).map(str::to_owned),
            past: Past::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(method: Method, target: &str) -> bool {
        is_inference(&method, &target.parse().expect("the test's own path"))
    }

    #[test]
    fn requests_for_vectors_wait_and_wake() {
        for target in ["/v1/embeddings", "/v1/embeddings?x=1", "/", "/embed", "/similarity", "/rerank"] {
            assert!(asks(Method::POST, target), "{target}");
        }
        for target in ["/?content=a%20b", "/?x=1&content=a", "/get_vector_simple?sentence=a"] {
            assert!(asks(Method::GET, target), "{target}");
        }
    }

    /// What monitors, browsers and service meshes send must leave a service asleep.
    #[test]
    fn probes_neither_wait_nor_wake() {
        for target in [
            "/",
            "/?content=",
            "/?content",
            "/?sentence=a",
            "/get_vector_simple?content=a",
            "/health",
            "/health/ready",
            "/info",
            "/v1/models",
            "/v1/embeddings",
            "/metrics",
            "/ui",
            "/openapi.json",
        ] {
            assert!(!asks(Method::GET, target), "{target}");
        }
        for method in [Method::OPTIONS, Method::HEAD, Method::PUT, Method::DELETE] {
            assert!(!asks(method.clone(), "/v1/embeddings"), "{method}");
            assert!(!asks(method.clone(), "/?content=a"), "{method}");
        }
        for target in ["/tokenize", "/decode", "/v1/embeddings/", "/v1/x", "/health"] {
            assert!(!asks(Method::POST, target), "{target}");
        }
    }

    #[test]
    fn nobody_is_woken_for_what_is_no_json() {
        assert_eq!(look_over(&Method::POST, br#"{"input": "x"}"#), Ok(()));
        for body in ["", "x=1", r#"{"input": "x""#] {
            assert!(
                matches!(look_over(&Method::POST, body.as_bytes()), Err(Refusal::NotJson { .. })),
                "{body}"
            );
        }
        assert_eq!(look_over(&Method::GET, b""), Ok(()));
    }

    #[test]
    fn terms_are_read_where_they_can_be() {
        let now = Instant::now();
        let terms = |lane: &'static str, deadline: &'static str| {
            let headers = [
                ("x-kembed-lane", lane),
                ("x-kembed-deadline-ms", deadline),
                ("x-kembed-space", "sha256:one"),
            ];
            let line = |(name, value): (&'static str, &'static str)| {
                (name.parse::<http::HeaderName>().expect("a name"), http::HeaderValue::from_static(value))
            };
            Terms::of(&headers.into_iter().map(line).collect(), now)
        };
        let read = terms("bulk", "1500");
        assert_eq!((read.lane, read.deadline), (Lane::Bulk, Some(now + Duration::from_millis(1500))));
        assert_eq!(read.space.as_deref(), Some("sha256:one"));
        for deadline in ["", "-1", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(terms("fast", deadline).deadline, None, "{deadline}");
        }
        assert_eq!(Terms::of(&HeaderMap::new(), now), Terms::default());
    }
}
