//! Who may use which service, and how much.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode};
use bytes::Bytes;
use http::{
    HeaderName, Method, Request,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::Full;
use kembed_queue::credit::{POD_LOAD_HEADER, PodLoad};
use operator::gateway::{
    availability::Service,
    keys::{Allowance, ApiKey, KeyHash},
};
use serde_json::json;

use crate::support::*;

fn key(name: &str, secret: &str, allowance: Allowance) -> ApiKey {
    ApiKey { name: name.to_owned(), hash: Some(KeyHash::of(secret.as_bytes())), allowance }
}

/// A service that takes this key.
fn closed(name: &str, secret: &str) -> Service {
    Service { keys: vec![key("search", secret, Allowance::default())], ..service(name) }
}

/// A gateway before `team/open`, and `team/alpha` and `team/beta` that take the keys `first` and `second`.
async fn bench() -> Bench {
    let bench = Bench::start().await;
    bench.add(service("team/open"), &[telling_pod("open").await]);
    bench.add(closed("team/alpha", "first"), &[telling_pod("alpha").await]);
    bench.add(closed("team/beta", "second"), &[telling_pod("beta").await]);
    bench
}

/// A request with a key, if there is one.
fn with_key(mut request: Request<Full<Bytes>>, secret: Option<&str>) -> Request<Full<Bytes>> {
    if let Some(secret) = secret {
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {secret}").parse().expect("a value"));
    }
    request
}

fn embed(model: &str) -> Request<Full<Bytes>> {
    post("gateway.kembed", "/v1/embeddings", format!(r#"{{"model":"{model}","input":"x"}}"#))
}

#[tokio::test]
async fn a_key_opens_its_service_by_every_route_and_goes_no_further() {
    let bench = bench().await;
    for request in [get("alpha.team", "/v1/x"), get("x", "/team/alpha/v1/x"), embed("team/alpha")] {
        let told = bench.ask(with_key(request, Some("first"))).await.json();
        assert_eq!(told["pod"], "alpha");
        assert!(!told.to_string().contains("first"), "{told}");
    }
    for header in ["api-key", "x-api-key"] {
        let mut request = get("alpha.team", "/");
        request.headers_mut().insert(HeaderName::from_static(header), "first".parse().expect("a value"));
        let told = bench.ask(request).await.json();
        assert_eq!((&told["pod"], told["headers"].get(header)), (&json!("alpha"), None));
    }
    // Nor may the pod of an open service learn the key of another.
    let told = bench.ask(with_key(get("open.team", "/"), Some("first"))).await.json();
    assert_eq!((&told["pod"], told["headers"].get("authorization")), (&json!("open"), None));
}

#[tokio::test]
async fn an_open_service_is_open_to_all() {
    let bench = bench().await;
    for secret in [None, Some("none"), Some("first")] {
        for request in [get("open.team", "/"), get("x", "/team/open/"), embed("team/open")] {
            assert_eq!(bench.ask(with_key(request, secret)).await.json()["pod"], "open", "{secret:?}");
        }
    }
}

/// Makes a request to the service of a name.
type Asking = dyn Fn(&str) -> Request<Full<Bytes>>;

/// All that a client could tell apart.
fn fingerprint(answer: &Answer, name: &str) -> String {
    let body = String::from_utf8_lossy(&answer.body).replace(name, "<name>");
    let differs = ["date", "server-timing"];
    let headers = answer.headers.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
    let mut headers: Vec<_> = headers.collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    let headers: Vec<_> = headers.iter().filter(|(name, _)| *name != "content-length").collect();
    format!("{} {headers:?} {body}", answer.status)
}

#[tokio::test]
async fn what_is_closed_and_what_is_not_there_answer_alike() {
    let bench = bench().await;
    let requests: [&Asking; 9] = [
        &|name| get(&format!("{name}.team"), "/"),
        &|name| get(&format!("{name}.team.svc"), "/v1/models"),
        &|name| get(&format!("{name}.team.svc"), "/v1/embeddings"),
        &|name| post(&format!("{name}.team"), "/v1/embeddings", r#"{"input":"x"}"#),
        &|name| post(&format!("{name}.team"), "/v1/embeddings", r#"{"model":"team/open"}"#),
        &|name| get("x", &format!("/team/{name}/v1/models")),
        &|name| post("x", &format!("/team/{name}/v1/embeddings"), "{}"),
        &|name| {
            let request = Request::builder().method(Method::OPTIONS).uri(format!("/team/{name}/"));
            request.header(HOST, "x").body(Full::default()).expect("a request")
        },
        &|name| embed(&format!("team/{name}")),
    ];
    // Without a key, with one that nobody knows, and with that of another service.
    for secret in [None, Some("none"), Some("second")] {
        for request in requests {
            let [there, not] = ["alpha", "gamma"].map(|name| (with_key(request(name), secret), name));
            let there = fingerprint(&bench.ask(there.0).await, there.1);
            let not = fingerprint(&bench.ask(not.0).await, not.1);
            assert_eq!(there, not, "{secret:?}");
        }
    }
}

#[tokio::test]
async fn who_has_no_key_is_asked_for_one() {
    let bench = bench().await;
    for request in [
        get("alpha.team", "/"),
        get("x", "/team/alpha/"),
        embed("team/alpha"),
        embed("text-embedding-3-small"),
    ] {
        for (secret, said) in [(None, "send an API key"), (Some("sekret"), "its API key is not known here")] {
            let answer = bench.ask(with_key(request.clone(), secret)).await;
            let (code, message) = answer.error();
            assert_eq!((answer.status.as_u16(), code.as_str()), (401, "invalid_api_key"));
            assert!(message.contains(said) && !message.contains("sekret"), "{message}");
            assert_eq!(
                (answer.header("x-should-retry"), answer.header("www-authenticate")),
                (Some("false"), Some("Bearer"))
            );
        }
    }
    let answer = bench.ask(with_key(embed("team/beta"), Some("first"))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error().0.as_str()),
        (404, "model_not_found"),
        "it is a key, after all"
    );
}

#[tokio::test]
async fn where_all_is_open_nobody_needs_a_key() {
    let bench = Bench::start().await;
    bench.add(service("team/open"), &[telling_pod("open").await]);
    let answer = bench.ask(with_key(get("x", "/team/alpha/"), Some("none"))).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (404, "unknown_url"));
    let told = bench.ask(with_key(get("open.team", "/"), Some("of the pod"))).await.json();
    assert_eq!(told["headers"]["authorization"], "Bearer of the pod");
}

#[tokio::test]
async fn the_list_holds_what_a_caller_may_use() {
    let bench = bench().await;
    let listed = async |secret| {
        let list = bench.ask(with_key(get("gateway.kembed", "/v1/models"), secret)).await.json();
        let ids = list["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|model| model["id"].as_str().expect("an id").to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(listed(None).await, ["team/open"]);
    assert_eq!(listed(Some("none")).await, ["team/open"]);
    assert_eq!(listed(Some("first")).await, ["team/alpha", "team/open"]);
    assert_eq!(listed(Some("second")).await, ["team/beta", "team/open"]);

    let bench = Bench::start().await;
    bench.add(closed("team/alpha", "first"), &[]);
    let answer = bench.ask(get("gateway.kembed", "/v1/models")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (401, "invalid_api_key"));
}

/// Where nothing is open, who has no key takes no room with a body either.
#[tokio::test]
async fn a_body_is_read_of_those_alone_for_whom_there_is_something() {
    let bench = Bench::start().await;
    bench.add(closed("team/alpha", "first"), &[]);
    // More than is ever read, and no JSON.
    let answer = bench.ask(post("gateway.kembed", "/v1/embeddings", "x".repeat(2000))).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (401, "invalid_api_key"));
    let large = post("gateway.kembed", "/v1/embeddings", "x".repeat(2000));
    assert_eq!(bench.ask(with_key(large, Some("first"))).await.status, 413);
}

/// A gateway before a service whose key may send so much, and whose pod answers with this status and header.
async fn limited(allowance: Allowance, status: StatusCode, load: Option<PodLoad>) -> Bench {
    let pod = Router::new().fallback(async move || {
        let load = load.map(|load| (HeaderName::from_static(POD_LOAD_HEADER), load.to_string()));
        (status, axum::response::AppendHeaders(load))
    });
    with_pod(allowance, pod_with(pod).await).await
}

async fn with_pod(allowance: Allowance, pod: SocketAddr) -> Bench {
    let bench = Bench::start().await;
    let keys = vec![key("search", "first", allowance), key("other", "other", allowance)];
    bench.add(Service { keys, ..service("team/alpha") }, &[pod]);
    bench
}

/// Sends a body of so many bytes with a key.
async fn send(bench: &Bench, secret: &str, bytes: usize) -> Answer {
    bench.ask(with_key(post("alpha.team", "/", "x".repeat(bytes)), Some(secret))).await
}

fn tokens(limit: u64) -> Allowance {
    Allowance { tokens_per_minute: Some(limit), ..Allowance::default() }
}

#[tokio::test]
async fn more_requests_than_a_key_may_send_are_refused() {
    let allowance = Allowance { requests_per_second: Some(2), ..Allowance::default() };
    let bench = limited(allowance, StatusCode::OK, None).await;
    let mut refused = None;
    // Two at once, and in the time that this takes a few more.
    for _ in 0..1000 {
        let answer = send(&bench, "first", 0).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let answer = refused.expect("it is refused in the end");
    let (code, message) = answer.error();
    assert_eq!((answer.status.as_u16(), code.as_str()), (429, "rate_limit_exceeded"));
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("1")));
    assert_eq!(answer.json()["error"]["type"], "requests");
    assert!(
        message.starts_with("the limit of this API key is 2 requests a second: try again in 0."),
        "{message}"
    );
    assert_eq!(send(&bench, "other", 0).await.status, 200, "another key has its own limit");
    let limited = r#"key_requests_total{namespace="team",service="alpha",key="search",outcome="limited"} 1"#;
    assert!(bench.metrics().contains(limited), "{}", bench.metrics());
}

#[tokio::test]
async fn more_tokens_than_a_key_may_send_are_refused() {
    let bench = limited(tokens(100), StatusCode::OK, None).await;
    let began = Instant::now();
    // 4 bytes are taken for a token.
    assert_eq!(send(&bench, "first", 400).await.status, 200);
    let answer = send(&bench, "first", 400).await;
    assert_eq!(answer.status, 429);
    // A minute, less the time that this takes.
    let after: u64 = answer.header("retry-after").and_then(|after| after.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&after) && after + began.elapsed().as_secs() >= 59, "{after}");
    assert_eq!(answer.json()["error"]["type"], "tokens");
}

#[tokio::test]
async fn what_the_pod_tells_corrects_the_charge() {
    let load = PodLoad { credit: 1, work: 1, ..PodLoad::default() };
    let bench = limited(tokens(100), StatusCode::OK, Some(load)).await;
    for _ in 0..50 {
        assert_eq!(send(&bench, "first", 200).await.status, 200);
    }
    let used = r#"key_tokens_total{namespace="team",service="alpha",key="search"} 50"#;
    assert!(bench.metrics().contains(used), "{}", bench.metrics());
}

#[tokio::test]
async fn what_no_pod_computed_costs_no_tokens() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE] {
        let bench = limited(tokens(100), status, None).await;
        for _ in 0..3 {
            assert_eq!(send(&bench, "first", 400).await.status, status);
        }
    }
    let mut setup = Setup::default();
    setup.limits.wait.time = Duration::from_millis(50);
    let bench = Bench::start_with(setup).await;
    let keys = vec![key("search", "first", tokens(100))];
    bench.add(Service { keys, ..service("team/alpha") }, &[nobody()]);
    for _ in 0..3 {
        // The pod refuses connections, and nobody else comes. Who comes while it is left alone for that hears that all are busy.
        let status = send(&bench, "first", 400).await.status;
        assert!(matches!(status.as_u16(), 502 | 503), "{status}");
    }
}

/// A body without a length must not be free.
#[tokio::test]
async fn a_body_in_chunks_is_charged_as_well() {
    let bench = limited(tokens(100), StatusCode::OK, None).await;
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: alpha.team\r\napi-key: first\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         190\r\n{}\r\n0\r\n\r\n",
        "x".repeat(400)
    );
    assert!(bench.raw(&chunked).await.starts_with("HTTP/1.1 200"));
    assert!(bench.raw(&chunked).await.starts_with("HTTP/1.1 429"));
}
