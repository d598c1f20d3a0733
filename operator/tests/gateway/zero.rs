//! What wakes a service at zero and what does not, an hour long: the clock is not the real one, and no socket is in between.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::{
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kembed_queue::report::Report;
use operator::gateway::{
    availability::Service,
    keys::{Allowance, ApiKey, KeyHash},
};
use tokio::time::{sleep, timeout};

use crate::support::*;

const HOUR: usize = 3600;
const SECOND: Duration = Duration::from_secs(1);
const EMBED: &str = "/v1/embeddings";
const INPUT: &str = r#"{"input": "x"}"#;

/// What somebody may send.
#[derive(Clone)]
struct Sent {
    method: Method,
    host: &'static str,
    path: String,
    header: Option<(&'static str, &'static str)>,
    body: &'static str,
}

impl Sent {
    fn new(method: Method, path: &str) -> Self {
        Self { method, host: "minilm.team.svc", path: path.to_owned(), header: None, body: "" }
    }

    fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    fn post(path: &str, body: &'static str) -> Self {
        Self { body, ..Self::new(Method::POST, path) }
    }

    fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    fn to(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(self.body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().expect("the test's own path");
        request.headers_mut().insert(HOST, HeaderValue::from_static(self.host));
        if let Some((name, value)) = self.header {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request
    }

    /// For people.
    fn text(&self) -> String {
        format!("{} {}{} {:?} {:?}", self.method, self.host, self.path, self.header, self.body)
    }
}

/// What monitors, browsers, meshes and load balancers send, and what is no request that a pod would serve, by kind.
fn probes() -> Vec<Vec<Sent>> {
    let get = |paths: &[&str]| {
        let by_host = paths.iter().map(|path| Sent::get(path));
        let by_path = paths.iter().map(|path| Sent::get(&format!("/team/minilm{path}")).to("10.0.0.7"));
        by_host.chain(by_path).collect::<Vec<_>>()
    };
    let with = |methods: &[Method]| {
        let paths = ["/", EMBED, "/embed", "/?content=x", "/get_vector_simple?sentence=x"];
        let all = methods.iter().flat_map(|method| paths.map(|path| Sent::new(method.clone(), path)));
        all.collect::<Vec<_>>()
    };
    let mut preflights = with(&[Method::OPTIONS]);
    preflights.push(Sent::new(Method::OPTIONS, EMBED).with("access-control-request-method", "POST"));
    let kubelet = Sent::get("/").with("user-agent", "kube-probe/1.36");
    vec![
        [get(&["/"]), vec![kubelet, Sent::get(EMBED).with("upgrade", "websocket")]].concat(),
        get(&["/health", "/health/live", "/health/ready", "/healthz", "/metrics"]),
        get(&["/v1/models", "/info", "/ui", "/openapi.json", "/favicon.ico", "/robots.txt"]),
        get(&[
            "/?content=",
            "/?content",
            "/?sentence=x",
            "/get_vector_simple",
            "/get_vector_simple?sentence=",
        ]),
        get(&[EMBED, "/embed", "/v1/embeddings/"]),
        with(&[Method::HEAD]),
        preflights,
        with(&[Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE]),
        ["/v1/models", "/", "/health", "/team/none/"]
            .map(|path| Sent::get(path).to("gateway.kembed.svc"))
            .into(),
        // What computes no vectors.
        vec![
            Sent::post("/tokenize", r#"{"inputs": "x"}"#),
            Sent::post("/decode", r#"{"ids": [1]}"#),
            Sent::post("/grpc.health.v1.Health/Check", ""),
            Sent::post("/v1/embeddings/", INPUT),
            Sent::post("/v1/completions", r#"{"prompt": "x"}"#),
        ],
        // No JSON, which no pod would take.
        vec![
            Sent::post(EMBED, ""),
            Sent::post(EMBED, "input=x"),
            Sent::post("/embed", r#"{"inputs": "#),
            Sent::post(EMBED, INPUT).to("gateway.kembed.svc"),
        ],
        // Vectors of another space than there will ever be.
        vec![Sent::post(EMBED, INPUT).with("x-kembed-space", "sha256:other")],
        // Of a service that is not there for this caller, or for anybody, or is switched off.
        vec![
            Sent::post(EMBED, INPUT).to("locked.team.svc"),
            Sent::post(EMBED, INPUT).to("locked.team.svc").with("authorization", "Bearer stranger"),
            Sent::post(EMBED, r#"{"input": "x", "model": "team/locked"}"#).to("gateway.kembed.svc"),
            Sent::post(EMBED, r#"{"input": "x", "model": "team/none"}"#).to("gateway.kembed.svc"),
            Sent::post(EMBED, INPUT).to("off.team.svc"),
        ],
    ]
}

/// What is to be answered with vectors.
fn requests() -> Vec<Sent> {
    let mut requests = Vec::new();
    for path in [
        EMBED,
        "/",
        "/embed",
        "/embed_all",
        "/embed_sparse",
        "/similarity",
        "/rerank",
        "/v1/rerank",
        "/predict",
    ] {
        requests.push(Sent::post(path, INPUT));
        requests.push(Sent::post(&format!("/team/minilm{path}"), INPUT).to("api.example.com"));
    }
    for path in ["/?content=x", "/get_vector_simple?sentence=x", "/get_vector_async?sentence=x"] {
        requests.push(Sent::get(path));
        requests.push(Sent::get(&format!("/team/minilm{path}")).to("api.example.com"));
    }
    requests.extend([
        Sent::post(EMBED, r#"{"input": "x", "model": "team/minilm"}"#).to("gateway.kembed.svc"),
        Sent::post(EMBED, INPUT).with("x-kembed-lane", "bulk"),
        Sent::post(EMBED, INPUT).with("x-kembed-space", SPACE),
        Sent::post(EMBED, INPUT).with("x-kembed-deadline-ms", "60000"),
        Sent::post(EMBED, INPUT).to("locked.team.svc").with("authorization", "Bearer known"),
    ]);
    requests
}

/// A gateway with services at zero, and what it tells the leader.
struct World {
    bench: Bench,
    version: u64,
}

impl World {
    async fn new() -> Self {
        let bench = Bench::start().await;
        let asleep = |text: &str| Service { replicas: 0, scales: true, ..service(text) };
        let hash = Some(KeyHash::of(b"known"));
        let key = ApiKey { name: "reader".to_owned(), hash, allowance: Allowance::default() };
        bench.add(asleep("team/minilm"), &[]);
        bench.add(Service { keys: vec![key], ..asleep("team/locked") }, &[]);
        bench.add(Service { replicas: 0, ..service("team/off") }, &[]);
        Self { bench, version: 0 }
    }

    /// A connection to it.
    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let gateway = self.bench.gateway.clone();
        let service = service_fn(move |request| {
            let gateway = gateway.clone();
            async move { Ok::<_, std::convert::Infallible>(gateway.answer(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(there), service));
        let (sender, connection) = handshake(TokioIo::new(here)).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    /// The next line of the stream to the leader, from which alone it decides whom to wake.
    fn report(&mut self) -> Report {
        let asleep = |name: &str| self.bench.knowledge.read(|directory| directory.is_asleep(name));
        let (report, version) = self.bench.gateway.load().report(self.version, asleep);
        self.version = version;
        report
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_probes_leaves_services_at_zero() {
    let mut world = World::new().await;
    let (probes, mut connection) = (probes(), world.connect().await);
    for second in 0..HOUR {
        // One of each kind, another one each time.
        for probe in probes.iter().map(|kind| &kind[second % kind.len()]) {
            connection.ready().await.expect("it stays open");
            let answer = timeout(SECOND, connection.send_request(probe.request())).await;
            let answer = answer.unwrap_or_else(|_| panic!("{} was held", probe.text())).expect("an answer");
            let status = answer.status().as_u16();
            answer.into_body().collect().await.expect("a whole body");
            assert!(status >= 400 || probe.path == "/v1/models", "{} was answered {status}", probe.text());
        }
        let report = world.report();
        assert_eq!(report.services.len(), 0, "after {second} s: {report:?}");
        sleep(SECOND).await;
    }
    assert!(world.bench.metrics().contains("kembed_gateway_wakes_total 0\n"));
    assert_eq!(world.bench.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_request_for_vectors_wakes_its_service_at_once() {
    for sent in requests() {
        let mut world = World::new().await;
        let mut connection = world.connect().await;
        let mut answer = std::pin::pin!(connection.send_request(sent.request()));
        assert!(timeout(SECOND, &mut answer).await.is_err(), "{} was not held", sent.text());
        let wanted: Vec<_> =
            world.report().services.into_iter().filter(|(_, told)| told.wanted.is_some()).collect();
        let expected = if sent.host.starts_with("locked") { "team/locked" } else { "team/minilm" };
        assert_eq!(
            wanted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            [expected],
            "{}",
            sent.text()
        );
        assert!(world.bench.metrics().contains("kembed_gateway_wakes_total 1\n"), "{}", sent.text());
    }
}
