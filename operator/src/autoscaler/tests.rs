//! The loop on a paused clock, before an API server and gateways that are made up.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kembed_queue::report::{Report, ServiceReport};
use kube::{
    Client,
    client::Body,
    runtime::{
        events::{Recorder, Reporter},
        reflector::{self, store::Writer as StoreWriter},
        watcher,
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{task::yield_now, time::advance};
use tower::service_fn;

use super::*;
use crate::autoscaler::{decisions::Decisions, metrics::Metrics};

/// A service in the API, and the writes of its count that came.
#[derive(Debug)]
struct Stored {
    version: u64,
    replicas: u64,
    scaling: Value,
    /// The count asked for, and the answer.
    writes: Vec<(u64, StatusCode)>,
    /// Answers nothing more.
    hangs: bool,
}

#[derive(Clone)]
struct Api(Arc<Mutex<Stored>>);

impl Api {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody changes it.
    fn change(&self, change: impl FnOnce(&mut Stored)) {
        let mut stored = self.stored();
        stored.version += 1;
        change(&mut stored);
    }

    fn object(&self) -> EmbeddingService {
        let stored = self.stored();
        let object = json!({
            "apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
            "metadata": {"namespace": "t", "name": "s", "uid": "u", "resourceVersion": stored.version.to_string()},
            "spec": {"model": {"uri": "hf://a/b"}, "replicas": stored.replicas, "scaling": stored.scaling},
        });
        serde_json::from_value(object).expect("an EmbeddingService")
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let scales = request.uri().path().ends_with("/embeddingservices/s/scale");
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if self.stored().hangs {
            std::future::pending::<()>().await;
        }
        if !scales {
            return Ok(Response::new(Body::from(body.to_vec()))); // an event
        }
        let asked: Value = serde_json::from_slice(&body).expect("a patch");
        let mut stored = self.stored();
        let replicas = asked["spec"]["replicas"].as_u64().expect("a count");
        let as_seen = asked["metadata"]["resourceVersion"] == json!(stored.version.to_string());
        let status = if as_seen { StatusCode::OK } else { StatusCode::CONFLICT };
        stored.writes.push((replicas, status));
        if as_seen {
            (stored.version, stored.replicas) = (stored.version + 1, replicas);
        }
        let answer = match status {
            StatusCode::OK => json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
                "metadata": {"name": "s", "resourceVersion": stored.version.to_string()},
                "spec": {"replicas": replicas}}),
            _ => json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 409}),
        };
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = status;
        Ok(response)
    }
}

struct World {
    api: Api,
    seen: StoreWriter<EmbeddingService>,
    news: mpsc::Sender<News>,
    registry: Registry,
    told: u64,
}

impl World {
    /// A leader that follows one gateway, and a service as given.
    async fn new(replicas: u64, scaling: Value) -> Self {
        let stored = Stored { version: 7, replicas, scaling, writes: Vec::new(), hangs: false };
        let api = Api(Arc::new(Mutex::new(stored)));
        let answers = api.clone();
        let client = Client::new(service_fn(move |request| answers.clone().answer(request)), "t");
        let (services, seen) = reflector::store();
        let (news, inbox) = mpsc::channel(INBOX);
        let mut registry = Registry::default();
        let writer = Writer {
            recorder: Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: None }),
            client,
            decisions: Decisions::new().0,
            metrics: Metrics::new(&mut registry),
            services,
        };
        let autoscaler = Autoscaler { writer, pods: reflector::store().0, sightings: Sightings::default() };
        tokio::spawn(listen(autoscaler, inbox));
        let mut world = Self { api, seen, news, registry, told: 0 };
        world.see();
        world.tell(News::Gateways(BTreeSet::from(["g".to_owned()]))).await;
        world
    }

    /// The leader's watch brings what is stored.
    fn see(&mut self) {
        let event = watcher::Event::Apply(self.api.object());
        self.seen.apply_watcher_event(&event);
    }

    async fn tell(&self, news: News) {
        self.news.send(news).await.expect("it listens");
    }

    /// The gateway speaks, and a second passes.
    async fn second(&mut self, wanted: bool) {
        self.told += 1;
        let service = ServiceReport { wanted: wanted.then_some(1), ..ServiceReport::default() };
        let services = wanted.then(|| ("t/s".to_owned(), service)).into_iter().collect();
        let report = Report { epoch: "e".into(), at: self.told * 1_000_000, services };
        self.tell(News::Report { gateway: "g".into(), report }).await;
        self.pass(Duration::from_secs(1)).await;
    }

    async fn pass(&self, time: Duration) {
        settle().await;
        advance(time).await;
        settle().await;
    }

    fn writes(&self) -> Vec<(u64, StatusCode)> {
        self.api.stored().writes.clone()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes all");
        text
    }
}

/// Lets all that can go on do so, while no time passes.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

const OK: StatusCode = StatusCode::OK;

#[tokio::test(start_paused = true)]
async fn a_count_out_of_its_bounds_is_written_once() {
    let mut world = World::new(9, json!({"maxReplicas": 4})).await;
    for _ in 0..5 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), [(4, OK)], "what was written was not seen yet, and is not written again");
    world.see();
    for _ in 0..5 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), [(4, OK)]);
    let counted = "kembed_autoscaler_writes_total{reason=\"Bounds\",outcome=\"Written\"} 1\n";
    assert!(world.metrics().contains(counted), "{}", world.metrics());
}

#[tokio::test(start_paused = true)]
async fn without_scaling_nothing_is_ever_written() {
    let mut world = World::new(9, Value::Null).await;
    for _ in 0..100 {
        world.second(true).await;
    }
    world.api.change(|stored| stored.replicas = 0);
    world.see();
    for _ in 0..100 {
        world.second(true).await;
    }
    assert_eq!(world.writes(), []);
}

#[tokio::test(start_paused = true)]
async fn who_changed_it_meanwhile_is_seen_first() {
    let mut world = World::new(9, json!({"maxReplicas": 4})).await;
    world.api.change(|stored| stored.replicas = 3);
    world.second(false).await;
    world.second(false).await;
    let writes = world.writes();
    assert!(!writes.is_empty() && writes.iter().all(|write| write.1 == StatusCode::CONFLICT), "{writes:?}");
    world.see();
    for _ in 0..5 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), writes, "3 is within the bounds");
}

#[tokio::test(start_paused = true)]
async fn an_activation_does_not_wait_for_the_next_look() {
    let mut world = World::new(0, json!({})).await;
    world.second(false).await;
    world.second(false).await;
    let service = ServiceReport { wanted: Some(1), ..ServiceReport::default() };
    let services = [("t/s".to_owned(), service)].into();
    let report = Report { epoch: "e".into(), at: 2_500_000, services };
    world.tell(News::Report { gateway: "g".into(), report }).await;
    settle().await;
    assert_eq!(world.writes(), [(1, OK)], "no time has passed");
}

/// The service was woken, and its minimum is 3: the first pod comes alone.
#[tokio::test(start_paused = true)]
async fn from_zero_one_pod_comes_first_whatever_the_minimum() {
    let mut world = World::new(0, json!({"minReplicas": 3})).await;
    for _ in 0..5 {
        world.second(false).await;
        world.see();
    }
    assert_eq!(world.writes(), [(1, OK)]);
}

/// What an API server that hangs is asked is given up, and asked again.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_asked_again() {
    let mut world = World::new(9, json!({"maxReplicas": 4})).await;
    world.api.stored().hangs = true;
    for _ in 0..3 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), []);
    world.api.stored().hangs = false;
    for _ in 0..10 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), [(4, OK)]);
    assert!(world.metrics().contains("outcome=\"Failed\"} 1\n"), "{}", world.metrics());
}
