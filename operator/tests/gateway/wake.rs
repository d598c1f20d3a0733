//! From a request at zero to the count in the API: a gateway and the leader's autoscaler before an API server that is made
//! up.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode as Status,
    response::{IntoResponse, Response as ApiResponse},
    routing::{get as answer, patch, post as answer_post},
};
use bytes::Bytes;
use futures::{StreamExt, channel::mpsc, stream};
use kembed_crds::EmbeddingService;
use kembed_queue::report::{Report, ServiceReport};
use kube::runtime::{
    reflector::{self, store::Writer},
    watcher,
};
use operator::{
    autoscaler::{
        self, Autoscaler,
        decisions::Decisions,
        metrics::Metrics,
        sightings::Sightings,
        stream::Dialer,
        streams::{self, News, Whereabouts},
        write::Writer as CountWriter,
    },
    publisher::Publisher,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{cluster, load::reviewed, support::*};

/// An API server with services at zero, and gateways.
#[derive(Clone)]
struct Api {
    services: Vec<Value>,
    gateways: Arc<Mutex<Vec<Value>>>,
    /// Events of the watch of gateways.
    events: Arc<Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>>,
    /// The patches of scales that came, with when they did.
    patches: Arc<Mutex<Vec<(String, Value, Instant)>>>,
    /// Answers to the next patches; 200 after them.
    answers: Arc<Mutex<Vec<Status>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    watch: bool,
}

fn asleep(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
        "metadata": {"namespace": "team", "name": name, "uid": name, "resourceVersion": version},
        "spec": {"model": {"uri": "hf://a/b"}, "replicas": 0, "scaling": {}},
    })
}

fn gateway_pod(uid: &str, internal: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "kembed", "name": format!("kembed-gateway-{uid}"), "uid": uid, "resourceVersion": "4"},
        "spec": {"containers": [{"name": "gateway", "ports": [{"name": "internal", "containerPort": internal.port()}]}]},
        "status": {"podIP": internal.ip(), "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

async fn watched(State(api): State<Api>, Query(asked): Query<Asked>) -> ApiResponse {
    if asked.watch {
        return cluster::events(stream::pending());
    }
    Json(json!({"apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingServiceList",
        "metadata": {"resourceVersion": "7"}, "items": api.services}))
    .into_response()
}

async fn no_pods(Query(asked): Query<Asked>) -> ApiResponse {
    if asked.watch {
        return cluster::events(stream::pending());
    }
    Json(json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": []}))
        .into_response()
}

async fn gateways(State(api): State<Api>, Query(asked): Query<Asked>) -> ApiResponse {
    if !asked.watch {
        let items = api.gateways.lock().expect("no panic").clone();
        return Json(json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"},
            "items": items}))
        .into_response();
    }
    match api.events.lock().expect("no panic").take() {
        Some(given) => cluster::events(given),
        None => cluster::events(stream::pending()),
    }
}

async fn scale(State(api): State<Api>, Path(name): Path<String>, Json(asked): Json<Value>) -> ApiResponse {
    api.patches.lock().expect("no panic").push((name.clone(), asked, Instant::now()));
    let mut answers = api.answers.lock().expect("no panic");
    let answer = if answers.is_empty() { Status::OK } else { answers.remove(0) };
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"namespace": "team", "name": name, "resourceVersion": "9"}, "spec": {"replicas": 1}});
    let refusal = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no",
        "reason": "Conflict", "code": answer.as_u16()});
    (answer, Json(if answer == Status::OK { scale } else { refusal })).into_response()
}

/// A world with a leader that follows the gateways.
struct World {
    api: Api,
    address: SocketAddr,
    events: mpsc::UnboundedSender<Bytes>,
    services: Writer<EmbeddingService>,
    registry: Registry,
    token: tempfile::NamedTempFile,
    decisions: Decisions,
}

impl World {
    async fn new(names: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (events, given) = mpsc::unbounded();
        let api = Api {
            services: names.iter().map(|name| asleep(name, "7")).collect(),
            gateways: Arc::default(),
            events: Arc::new(Mutex::new(Some(given))),
            patches: Arc::default(),
            answers: Arc::default(),
        };
        let services = "/apis/kembed.dev/v1alpha1";
        let review = async |Json(asked): Json<Value>| Json(reviewed(&asked));
        let router = Router::new()
            .route(&format!("{services}/embeddingservices"), answer(watched))
            .route(&format!("{services}/namespaces/team/embeddingservices/{{name}}/scale"), patch(scale))
            .route("/api/v1/pods", answer(no_pods))
            .route("/api/v1/namespaces/kembed/pods", answer(gateways))
            .route("/apis/authentication.k8s.io/v1/tokenreviews", answer_post(review))
            .with_state(api.clone());
        let address = pod_with(router).await;
        let token = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(token.path(), "good\n").expect("a file that can be written");
        let (_, services) = reflector::store();
        let (decisions, _) = Decisions::new();
        let mut world =
            Self { api, address, events, services, registry: Registry::default(), token, decisions };
        for name in names {
            world.see(asleep(name, "7"));
        }
        world
    }

    fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.address).parse().expect("a URL");
        kube::Client::try_from(kube::Config::new(url)).expect("a client")
    }

    /// The leader's own watch tells this.
    fn see(&mut self, service: Value) {
        let service = serde_json::from_value(service).expect("an EmbeddingService");
        self.services.apply_watcher_event(&watcher::Event::Apply(service));
    }

    fn whereabouts() -> Whereabouts {
        Whereabouts { namespace: "kembed".into(), selector: "component=gateway".into() }
    }

    fn token(&self) -> PathBuf {
        self.token.path().to_path_buf()
    }

    /// Begins to lead.
    fn lead(&mut self) -> tokio::task::JoinHandle<()> {
        let client = self.client();
        let writer = CountWriter {
            publisher: Publisher::new(client.clone(), "test"),
            client,
            decisions: self.decisions.clone(),
            metrics: Metrics::new(&mut self.registry),
            services: self.services.as_reader(),
        };
        let autoscaler = Autoscaler { writer, pods: reflector::store().0, sightings: Sightings::default() };
        tokio::spawn(autoscaler::run(autoscaler, Self::whereabouts(), Dialer::new(self.token())))
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes all");
        text
    }

    fn patches(&self) -> Vec<(String, Value, Instant)> {
        self.api.patches.lock().expect("no panic").clone()
    }

    /// A gateway, which the leader finds.
    async fn gateway(&self, uid: &str) -> cluster::Running {
        let gateway = cluster::run(self.address).await;
        gateway.eventually(gateway.health, "/health/ready", 200).await;
        self.api.gateways.lock().expect("no panic").push(gateway_pod(uid, gateway.internal));
        gateway
    }
}

/// Sends a request for vectors, and leaves it there.
fn ask(gateway: &cluster::Running, name: &str) {
    let url = format!("http://{}/team/{name}/v1/embeddings", gateway.requests);
    let body = http_body_util::Full::new(Bytes::from("{}"));
    let request = http::Request::post(url).body(body).expect("a request");
    let client =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    tokio::spawn(client.request(request));
}

#[tokio::test]
async fn a_request_at_zero_sets_the_count_at_once() {
    let names: Vec<_> = (0..30).map(|i| format!("s{i}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names).await;
    let gateway = world.gateway("1").await;
    let leading = world.lead();
    eventually(|| world.metrics().contains("kembed_autoscaler_load_known 1.0\n")).await;
    let mut took = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let sent = Instant::now();
        ask(&gateway, name);
        eventually(|| world.patches().len() > index).await;
        let (patched, body, at) = world.patches().swap_remove(index);
        assert_eq!(patched, *name);
        assert_eq!(body, json!({"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 1}}));
        took.push(at - sent);
        // Far less than the time between two lines, but for a machine that is very busy.
        if index > 1 && took.last() < Some(&Duration::from_millis(500)) {
            break;
        }
    }
    eprintln!("from the request to the patch: {took:?}");
    assert!(took.last() < Some(&Duration::from_millis(500)), "{took:?}");
    let decided = world.decisions.get("team/s0", Some("s0")).scaling.expect("a decision");
    assert_eq!(decided.reason, "Activated");
    // The patch is there before it is counted.
    let woken = format!(
        "kembed_autoscaler_writes_total{{reason=\"Activated\",outcome=\"Written\"}} {}\n",
        took.len()
    );
    eventually(|| world.metrics().contains(&woken)).await;
    assert!(!leading.is_finished());
}

#[tokio::test]
async fn a_service_that_changed_meanwhile_is_looked_at_again() {
    let mut world = World::new(&["a"]).await;
    *world.api.answers.lock().expect("no panic") = vec![Status::CONFLICT];
    let gateway = world.gateway("1").await;
    world.lead();
    ask(&gateway, "a");
    eventually(|| world.patches().len() == 1).await;
    world.see(asleep("a", "8"));
    eventually(|| world.patches().len() == 2).await;
    assert_eq!(world.patches()[1].1["metadata"]["resourceVersion"], "8");
}

/// A leader that begins after the request hears of it with the first line.
#[tokio::test]
async fn the_next_leader_knows_who_waits() {
    let mut world = World::new(&["a"]).await;
    let gateway = world.gateway("1").await;
    ask(&gateway, "a");
    world.lead();
    eventually(|| world.patches().len() == 1).await;
}

/// A gateway that is made up: it tells these lines over one connection after the other, and stays silent then.
async fn telling_gateway(connections: Vec<Vec<Report>>) -> SocketAddr {
    let left = Arc::new(Mutex::new(connections.into_iter()));
    let tell = async move || {
        let lines = left.lock().expect("no panic").next();
        let ends = lines.is_some();
        let told = stream::iter(lines.unwrap_or_default())
            .map(|line| Ok::<_, std::convert::Infallible>(line.to_line()));
        if ends { Body::from_stream(told) } else { Body::from_stream(told.chain(stream::pending())) }
    };
    pod_with(Router::new().route("/internal/load", answer(tell))).await
}

fn report(epoch: &str, at: u64) -> Report {
    let services = [("team/a".to_owned(), ServiceReport::default())].into();
    Report { epoch: epoch.into(), at, services }
}

struct Followed {
    inbox: tokio::sync::mpsc::Receiver<News>,
}

impl Followed {
    fn of(world: &mut World) -> Self {
        let (news, inbox) = tokio::sync::mpsc::channel(16);
        let metrics = Metrics::new(&mut world.registry);
        let (client, dialer) = (world.client(), Dialer::new(world.token()));
        tokio::spawn(streams::follow(client, World::whereabouts(), dialer, news, metrics));
        Self { inbox }
    }

    async fn next(&mut self) -> News {
        timeout(PATIENCE, self.inbox.recv()).await.expect("news").expect("no end")
    }

    async fn report(&mut self) -> (String, u64) {
        loop {
            if let News::Report { gateway, report } = self.next().await {
                return (gateway, report.at);
            }
        }
    }

    async fn gateways(&mut self) -> BTreeSet<String> {
        loop {
            if let News::Gateways(gateways) = self.next().await {
                return gateways;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again() {
    let mut world = World::new(&[]).await;
    let gateway = telling_gateway(vec![vec![report("x", 1), report("x", 2)], vec![report("x", 3)]]).await;
    world.api.gateways.lock().expect("no panic").push(gateway_pod("1", gateway));
    let mut followed = Followed::of(&mut world);
    assert_eq!(followed.gateways().await, BTreeSet::from(["1".to_owned()]));
    for at in 1..=3 {
        assert_eq!(followed.report().await, ("1".to_owned(), at));
    }
}

#[tokio::test]
async fn gateways_come_and_go() {
    let mut world = World::new(&[]).await;
    let first = telling_gateway(vec![]).await;
    world.api.gateways.lock().expect("no panic").push(gateway_pod("1", first));
    let mut followed = Followed::of(&mut world);
    assert_eq!(followed.gateways().await, BTreeSet::from(["1".to_owned()]));

    let event = |kind: &str, pod: Value| Bytes::from(format!("{}\n", json!({"type": kind, "object": pod})));
    let second = gateway_pod("2", telling_gateway(vec![]).await);
    world.events.unbounded_send(event("ADDED", second)).expect("a watch");
    assert_eq!(followed.gateways().await, BTreeSet::from(["1".to_owned(), "2".to_owned()]));

    // One that ends may still have requests, so that it is followed as long as it speaks.
    let mut ending = gateway_pod("1", first);
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.events.unbounded_send(event("MODIFIED", ending.clone())).expect("a watch");
    assert_eq!(followed.gateways().await.len(), 2);
    world.events.unbounded_send(event("DELETED", ending)).expect("a watch");
    assert_eq!(followed.gateways().await, BTreeSet::from(["2".to_owned()]));
}

#[tokio::test]
async fn an_ending_gateway_is_let_go_when_its_stream_ends() {
    let mut world = World::new(&[]).await;
    let mut ending = gateway_pod("1", telling_gateway(vec![vec![report("x", 1)]; 1000]).await);
    world.api.gateways.lock().expect("no panic").push(ending.clone());
    let mut followed = Followed::of(&mut world);
    assert_eq!(followed.report().await.0, "1");
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let event = json!({"type": "MODIFIED", "object": ending});
    world.events.unbounded_send(format!("{event}\n").into()).expect("a watch");
    while !followed.gateways().await.is_empty() {}
}

#[tokio::test]
async fn a_gateway_that_tells_no_report_is_none() {
    let mut world = World::new(&[]).await;
    let garbled = pod_with(Router::new().route("/internal/load", answer(async || "{\"epoch\": 7}\n"))).await;
    world.api.gateways.lock().expect("no panic").push(gateway_pod("1", garbled));
    let _followed = Followed::of(&mut world);
    eventually(|| !world.metrics().contains("kembed_autoscaler_stream_failures_total 0\n")).await;
    assert!(world.metrics().contains("kembed_autoscaler_reports_total 0\n"));
}
