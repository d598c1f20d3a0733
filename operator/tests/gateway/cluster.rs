//! The whole gateway, as `operator gateway` runs it, before an API server that is made up.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get as answer,
};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use operator::gateway::{self, Args};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{shelf::Shelf, support::*};

/// An API server that has one service and one pod.
pub struct ApiServer {
    pub address: SocketAddr,
    services: Shelf,
    pods: Shelf,
    /// The gateways' pods.
    pub gateways: Shelf,
}

pub async fn api_server(pod: SocketAddr) -> ApiServer {
    let services = Shelf::default();
    let pods = Shelf::for_labels("app.kubernetes.io/managed-by=kembed,kembed.dev/service");
    let gateways = Shelf::for_labels(GATEWAYS);
    services.put(stored_service());
    pods.put(stored_pod(pod));
    let router = services
        .at("/apis/kembed.dev/v1alpha1/embeddingservices")
        .merge(pods.at("/api/v1/pods"))
        .merge(gateways.at("/api/v1/namespaces/kembed/pods"));
    ApiServer { address: pod_with(router).await, services, pods, gateways }
}

impl ApiServer {
    /// Answers nothing more but 503, and tells nobody of anything.
    fn die(&self) {
        self.services.refuse();
        self.pods.refuse();
    }
}

pub fn events(events: impl futures::Stream<Item = Bytes> + Send + 'static) -> Response {
    Body::from_stream(events.map(Ok::<_, Infallible>)).into_response()
}

fn stored_service() -> Value {
    json!({
        "apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
        "metadata": {"namespace": "team", "name": "minilm"},
        "spec": {"model": {"uri": "hf://a/b", "pooling": "OfALaterVersion"}, "replicas": 1},
        "status": {"space": {"digest": SPACE, "dimension": 3, "maxTokens": 256}},
    })
}

/// Labels of the gateways' pods.
pub const GATEWAYS: &str = "app.kubernetes.io/name=kembed,app.kubernetes.io/component=gateway";

pub fn stored_gateway(name: &str, internal: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "kembed", "name": name, "uid": name},
        "spec": {"containers": [{"name": "gateway", "ports": [{"name": "internal", "containerPort": internal.port()}]}]},
        "status": {"podIP": internal.ip(), "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn stored_pod(at: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "team", "name": "minilm-1", "uid": "u",
            "labels": {"app.kubernetes.io/managed-by": "kembed", "kembed.dev/service": "minilm"},
        },
        "spec": {"containers": [{"name": "inference-pod", "ports": [{"name": "http", "containerPort": at.port()}]}]},
        "status": {"podIP": at.ip(), "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// The gateway as its program runs it.
pub struct Running {
    pub requests: SocketAddr,
    pub health: SocketAddr,
    pub internal: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

pub async fn run(api_server: SocketAddr) -> Running {
    run_as(api_server, None, nobody()).await
}

/// One of several, if it has a name.
async fn run_as(api_server: SocketAddr, name: Option<&str>, internal: SocketAddr) -> Running {
    // Another test of this process may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::new(format!("http://{api_server}").parse().expect("a URL"));
    let client = kube::Client::try_from(config).expect("a client without TLS");
    let (requests, health) = (nobody(), nobody());
    let shutdown = CancellationToken::new();
    let args = Args {
        listen: requests,
        health_listen: health,
        internal_listen: internal,
        controller_user: Some(CONTROLLER.to_owned()),
        peers: name.map(|_| GATEWAYS.to_owned()),
        namespace: name.map(|_| "kembed".to_owned()),
        pod_name: name.map(str::to_owned),
        body_limit: 1024,
        bodies_limit: 64 * 1024,
        max_connections: 1024,
        access_log: false,
        queue_bytes_limit: 64 * 1024,
        queue_limit: 100,
        queue_timeout: PATIENCE,
        request_timeout: PATIENCE,
        drain_delay: Duration::ZERO,
        drain_timeout: PATIENCE,
    };
    let ended = tokio::spawn(gateway::run(args, client, shutdown.clone()));
    Running { requests, health, internal, shutdown, ended }
}

impl Running {
    /// Status and body of the answer for the service, or of the health listener.
    async fn ask(&self, at: SocketAddr, path: &str) -> Option<(u16, Bytes)> {
        let mut request = get("minilm.team.svc", path);
        *request.uri_mut() = format!("http://{at}{path}").parse().expect("a URL");
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let answer = read(client.request(request).await.ok()?).await;
        Some((answer.status.as_u16(), answer.body))
    }

    pub async fn eventually(&self, at: SocketAddr, path: &str, status: u16) {
        let look = async {
            while self.ask(at, path).await.map(|(status, _)| status) != Some(status) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, look).await.expect("it came to answer so");
    }
}

/// A pod that serves the recorded space.
async fn serving_pod() -> SocketAddr {
    let info = json!({
        "model_id": "hf://a/b", "max_input_length": 256, "version": "0",
        "space": {"digest": SPACE, "dimension": 3, "maxTokens": 256},
    });
    pod_with(Router::new().route("/info", answer(async move || Json(info))).fallback(async || "vector")).await
}

#[tokio::test]
async fn from_lists_to_an_answer_and_to_the_end() {
    let api = api_server(serving_pod().await).await;
    let gateway = run(api.address).await;
    gateway.eventually(gateway.health, "/health/ready", 200).await;
    gateway.eventually(gateway.requests, "/v1/x", 200).await;
    assert_eq!(gateway.ask(gateway.requests, "/v1/x").await, Some((200, Bytes::from("vector"))));
    let (_, metrics) = gateway.ask(gateway.health, "/metrics").await.expect("metrics");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(metrics.contains("kembed_gateway_services 1\n"), "{metrics}");

    let mut ending = stored_pod(nobody());
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    api.pods.put(ending);
    gateway.eventually(gateway.requests, "/v1/x", 503).await;

    gateway.shutdown.cancel();
    let ended = timeout(PATIENCE, gateway.ended).await.expect("an end").expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
    assert!(TcpStream::connect(gateway.requests).await.is_err());
}

#[tokio::test]
async fn without_the_api_server_traffic_goes_on() {
    let api = api_server(serving_pod().await).await;
    let gateway = run(api.address).await;
    gateway.eventually(gateway.requests, "/v1/x", 200).await;
    api.die();
    eventually(|| api.services.refused() > 0 && api.pods.refused() > 0).await;
    assert_eq!(gateway.ask(gateway.requests, "/v1/x").await, Some((200, Bytes::from("vector"))));
    assert_eq!(gateway.ask(gateway.health, "/health/ready").await.map(|(status, _)| status), Some(200));
}

#[tokio::test]
async fn without_the_api_server_nobody_waits_for_a_pod_that_cannot_come() {
    let pod = serving_pod().await;
    let api = api_server(pod).await;
    let gateway = run(api.address).await;
    gateway.eventually(gateway.requests, "/info", 200).await;
    api.pods.remove("minilm-1");
    gateway.eventually(gateway.requests, "/info", 503).await;
    let held = gateway.ask(gateway.requests, "/?content=x");
    assert!(timeout(Duration::from_secs(2), held).await.is_err(), "it waits while the API server is there");
    api.die();
    let began = Instant::now();
    let (status, body) = gateway.ask(gateway.requests, "/?content=x").await.expect("an answer");
    assert!(began.elapsed() < PATIENCE / 2, "it waited, and for {:?}", began.elapsed());
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("ActivationUnavailable"), "{body:?}");
}

#[tokio::test]
async fn it_is_not_ready_before_it_knows_anything() {
    let api = api_server(nobody()).await;
    api.die();
    let gateway = run(api.address).await;
    gateway.eventually(gateway.health, "/health/live", 200).await;
    assert_eq!(gateway.ask(gateway.health, "/health/ready").await.map(|(status, _)| status), Some(503));
    let (status, body) = gateway.ask(gateway.requests, "/v1/x").await.expect("an answer");
    assert_eq!(status, 503);
    assert!(String::from_utf8_lossy(&body).contains("gateway_starting"), "{body:?}");
}

#[tokio::test]
async fn gateways_find_each_other() {
    let api = api_server(serving_pod().await).await;
    let at = [nobody(), nobody()];
    let names = ["gateway-0", "gateway-1"];
    (0..2).for_each(|i| api.gateways.put(stored_gateway(names[i], at[i])));
    let [one, other] = [0, 1].map(|i| run_as(api.address, Some(names[i]), at[i]));
    let gateways = [one.await, other.await];
    let counted = async |gateway: &Running, line: &str| {
        let (_, metrics) = gateway.ask(gateway.health, "/metrics").await.expect("metrics");
        String::from_utf8_lossy(&metrics).lines().any(|text| text == line)
    };
    let connected = async {
        for gateway in &gateways {
            gateway.eventually(gateway.health, "/health/ready", 200).await;
            gateway.eventually(gateway.requests, "/?content=x", 200).await;
            while !counted(gateway, "kembed_gateway_peers 1").await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    timeout(PATIENCE, connected).await.expect("they came to know each other");
    let sent = async || {
        let mut sum = 0;
        for gateway in &gateways {
            let (_, metrics) = gateway.ask(gateway.health, "/metrics").await.expect("metrics");
            let metrics = String::from_utf8_lossy(&metrics).into_owned();
            let line = "kembed_gateway_forwarded_total{outcome=\"answered\"} ";
            let count = metrics.lines().find_map(|text| text.strip_prefix(line)?.parse::<usize>().ok());
            sum += count.unwrap_or(0);
        }
        sum
    };
    let before = sent().await;
    for gateway in &gateways {
        let answer = gateway.ask(gateway.requests, "/?content=x").await;
        assert_eq!(answer, Some((200, Bytes::from("vector"))));
    }
    assert_eq!(sent().await, before + 1, "one of the two owns it");
}
