//! The port on which the leader follows a gateway's load.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode as Status,
    response::{IntoResponse, Response as ApiResponse},
    routing::post as answer_post,
};
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kembed_queue::report::{LOAD_PATH, Level, Report, ServiceReport};
use operator::gateway::{
    directory::Update,
    internal::{self, Internal},
    reviews::Reviews,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::{
    stub::{StubPod, load},
    support::*,
};

/// Tokens by whose they are: this one is the controller's, one called `other` somebody else's.
const GOOD: &str = "good";

/// An API server that reviews tokens.
#[derive(Clone, Default)]
struct Reviewer {
    dead: Arc<AtomicBool>,
    reviews: Arc<AtomicUsize>,
}

async fn review(State(reviewer): State<Reviewer>, Json(asked): Json<Value>) -> ApiResponse {
    reviewer.reviews.fetch_add(1, Ordering::SeqCst);
    if reviewer.dead.load(Ordering::SeqCst) {
        return Status::SERVICE_UNAVAILABLE.into_response();
    }
    Json(reviewed(&asked)).into_response()
}

/// The answer to a TokenReview.
pub fn reviewed(asked: &Value) -> Value {
    let user = match asked["spec"]["token"].as_str() {
        Some(GOOD) => Some(CONTROLLER),
        Some("other") => Some("system:serviceaccount:team:other"),
        _ => None,
    };
    let status = match user {
        Some(user) => {
            json!({"authenticated": true, "audiences": asked["spec"]["audiences"], "user": {"username": user}})
        }
        None => json!({"error": "invalid bearer token"}),
    };
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
        "spec": asked["spec"], "status": status})
}

/// A gateway with its internal port.
struct Port {
    bench: Bench,
    address: SocketAddr,
    reviewer: Reviewer,
}

async fn port() -> Port {
    // Another test of this process may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let reviewer = Reviewer::default();
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", answer_post(review))
        .with_state(reviewer.clone());
    let api = format!("http://{}", pod_with(router).await);
    let client = kube::Client::try_from(kube::Config::new(api.parse().expect("a URL"))).expect("a client");
    let bench = Bench::start().await;
    let reviews = Reviews::new(client, Some(CONTROLLER.to_owned()));
    let internal = Internal::new(bench.gateway.load().clone(), bench.knowledge.clone(), reviews);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(internal::serve(None, listener, Arc::new(internal), internal::nothing_else));
    Port { bench, address, reviewer }
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// A client that keeps its connection.
fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

impl Port {
    async fn ask(&self, client: &Http, path: &str, token: Option<&str>) -> Response<Incoming> {
        let mut request = Request::get(format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::default()).expect("a request");
        timeout(PATIENCE, client.request(request)).await.expect("an answer").expect("an answer")
    }

    async fn status(&self, token: Option<&str>) -> StatusCode {
        self.ask(&client(), LOAD_PATH, token).await.status()
    }

    async fn lines(&self) -> Lines {
        let answer = self.ask(&client(), LOAD_PATH, Some(GOOD)).await;
        assert_eq!(answer.status(), 200);
        Lines { body: answer.into_body(), rest: BytesMut::new() }
    }
}

struct Lines {
    body: Incoming,
    rest: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Report {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                return serde_json::from_slice(&self.rest.split_to(end + 1)).expect("a report");
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("a line").expect("no end");
            self.rest.extend_from_slice(&frame.expect("no error").into_data().expect("data"));
        }
    }
}

#[tokio::test]
async fn only_the_controller_may_follow_the_load() {
    let port = port().await;
    assert_eq!(port.status(None).await, 401);
    assert_eq!(port.status(Some("guess")).await, 401);
    assert_eq!(port.status(Some("other")).await, 403);
    assert_eq!(port.status(Some(GOOD)).await, 200);
    let none = port.ask(&client(), "/internal/other", Some(GOOD)).await;
    assert_eq!(none.status(), 404);
}

#[tokio::test]
async fn a_connection_is_reviewed_once() {
    let (port, client) = (port().await, client());
    for (token, status) in [("other", 403), ("other", 403), (GOOD, 401), ("guess", 401)] {
        let answer = read(port.ask(&client, LOAD_PATH, Some(token)).await).await;
        assert_eq!(answer.status, status, "{token}");
    }
    assert_eq!(port.reviewer.reviews.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn while_the_api_server_is_away_only_tokens_that_it_vouched_for_are_taken() {
    let port = port().await;
    port.reviewer.dead.store(true, Ordering::SeqCst);
    assert_eq!(port.status(Some(GOOD)).await, 503, "nobody has vouched for it");
    port.reviewer.dead.store(false, Ordering::SeqCst);
    assert_eq!(port.status(Some(GOOD)).await, 200);
    assert_eq!(port.status(Some("other")).await, 403);
    port.reviewer.dead.store(true, Ordering::SeqCst);
    assert_eq!(port.status(Some(GOOD)).await, 200);
    assert_eq!(port.status(Some("other")).await, 503);
}

#[tokio::test]
async fn what_is_not_internal_goes_to_the_handler() {
    let port = port().await;
    let (listener, address) = listener().await;
    let internal = Internal::new(
        port.bench.gateway.load().clone(),
        port.bench.knowledge.clone(),
        Reviews::new(
            kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().expect("a URL")))
                .expect("a client"),
            None,
        ),
    );
    let forwarded = async |request: Request<Incoming>| {
        let path = Bytes::from(request.uri().path().to_owned());
        Response::new(Full::new(path).map_err(|never| match never {}).boxed_unsync())
    };
    tokio::spawn(internal::serve(None, listener, Arc::new(internal), forwarded));
    // HTTP/2 without further ado, as one gateway speaks to another.
    let mut connection = http2(address).await;
    for path in ["/v1/embeddings", "/internal", "/internally"] {
        let request = Request::get(format!("http://{address}{path}"))
            .body(Full::<Bytes>::default())
            .expect("a request");
        let answer = connection.send_request(request).await.expect("an answer");
        assert_eq!(read(answer).await.body, path);
    }
    let request = Request::get(format!("http://{address}{LOAD_PATH}")).body(Full::default());
    let answer = connection.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn what_requests_do_is_told() {
    let port = port().await;
    let pods = [telling_pod("a").await];
    port.bench.add(service("team/minilm"), &pods);
    let mut lines = port.lines().await;
    let first = lines.next().await;
    assert_eq!(first.services.len(), 0, "nothing has come");
    let body = "x".repeat(400);
    assert_eq!(port.bench.ask(post("minilm.team", "/v1/embeddings", body)).await.status, 200);
    assert_eq!(port.bench.ask(get("minilm.team", "/info")).await.status, 200);
    port.bench.add(service("team/gone"), &[dying_pod().await]);
    assert_eq!(port.bench.ask(post("gone.team", "/embed", "x")).await.status, 502);

    // The answer's last byte may be read before it is counted.
    let (mut minilm, mut gone) = (None, None);
    while !(minilm.is_some() && gone.is_some()) {
        let mut report = lines.next().await;
        assert_eq!(report.epoch, first.epoch);
        let mut over = |name: &str| {
            report.services.remove(name).filter(|told| told.counts.answered + told.counts.failed == 1)
        };
        (minilm, gone) = (over("team/minilm").or(minilm), over("team/gone").or(gone));
    }
    let counts = minilm.expect("it was told").counts;
    assert_eq!((counts.arrived, counts.answered, counts.arrived_tokens), (1, 1, 100), "{counts:?}");
    assert_eq!(counts.latencies.interactive.total(), 1);
    assert!(counts.in_hand_time.interactive > 0);
    assert_eq!(gone.expect("it was told").counts.failed, 1);
    assert!(port.bench.metrics().contains("kembed_gateway_wakes_total 0\n"));
}

#[tokio::test]
async fn how_fast_a_pod_is_is_told_until_it_is_gone() {
    let port = port().await;
    let measured = StubPod::with(Some(load(1, 4000)), Semaphore::MAX_PERMITS).await;
    port.bench.add(service("team/minilm"), &[measured.address]);
    assert_eq!(port.bench.ask(post("minilm.team", "/embed", "{}")).await.status, 200);
    let mut lines = port.lines().await;
    let rates = lines.next().await.services.remove("team/minilm").expect("it is told").rates;
    assert_eq!(rates, [("minilm-pod-0".to_owned(), 4000)].into());
    let gone = Update::Gone(pod(&name("team/minilm"), "pod-0", measured.address));
    port.bench.knowledge.update(|directory| directory.update_pods(gone));
    // The line that is due may have been written just before.
    for _ in 0..10 {
        let told = lines.next().await.services.remove("team/minilm");
        if told.is_some_and(|told| told.rates.is_empty()) {
            return;
        }
    }
    panic!("it is still told");
}

/// Between two lines lies a second: one that comes for somebody who waits at zero does not wait for it. Where the machine is
/// that slow, its turn may come before somebody does: then it is tried again.
#[tokio::test]
async fn somebody_who_waits_at_zero_is_told_of_at_once() {
    let mut tries = 0;
    while !wake_one().await {
        tries += 1;
        assert!(tries < 30, "it waits for its turn");
    }
}

/// Whether the line that tells of somebody who waits at zero came before its turn.
async fn wake_one() -> bool {
    let port = port().await;
    let mut asleep = service("team/minilm");
    (asleep.replicas, asleep.scales) = (0, true);
    port.bench.add(asleep.clone(), &[]);
    let mut lines = port.lines().await;
    let mut before = lines.next().await;
    for path in ["/", "/health", "/info", "/v1/models", "/metrics"] {
        assert_eq!(port.bench.ask(get("minilm.team", path)).await.status, 503);
    }
    let answer = port.bench.ask(post("minilm.team", "/v1/embeddings", "{}"));
    let wake = async {
        let told = loop {
            let told = lines.next().await;
            if told.services.contains_key("team/minilm") {
                break told;
            }
            before = told;
        };
        let minilm = &told.services["team/minilm"];
        assert!(minilm.wanted.is_some());
        assert_eq!((minilm.counts.arrived, minilm.level.waiting.total()), (1, 1), "looking does not count");
        asleep.replicas = 1;
        port.bench.add(asleep, &[telling_pod("a").await]);
        told.at - before.at < 1_000_000
    };
    let (answer, was_early) = tokio::join!(answer, wake);
    assert_eq!(answer.status, 200);
    loop {
        let mut report = lines.next().await;
        let over = |told: &ServiceReport| told.wanted.is_none() && told.counts.answered == 1;
        if let Some(told) = report.services.remove("team/minilm").filter(over) {
            assert_eq!((told.counts.waits.interactive.total(), told.level), (1, Level::default()));
            return was_early;
        }
    }
}
