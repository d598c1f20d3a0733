//! What the loop is put before: an API server and gateways that are made up, on a paused clock.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kembed_queue::report::{Counts, Report, ServiceReport};
use kube::{
    Client,
    client::Body,
    runtime::{
        reflector::{self, store::Writer as StoreWriter},
        watcher,
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tokio::{task::yield_now, time::advance};
use tower::service_fn;

use super::super::*;
use crate::{
    autoscaler::{decisions::Decisions, metrics::Metrics},
    publisher::Publisher,
};

/// A service in the API, and the writes of its count that came.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) replicas: u64,
    pub(super) scaling: Value,
    /// The count asked for, and the answer.
    pub(super) writes: Vec<(u64, StatusCode)>,
    /// Answers nothing more.
    pub(super) hangs: bool,
}

#[derive(Clone)]
pub(super) struct Api(pub(super) Arc<Mutex<Stored>>);

impl Api {
    pub(super) fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody changes it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Stored)) {
        let mut stored = self.stored();
        stored.version += 1;
        change(&mut stored);
    }

    pub(super) fn object(&self) -> EmbeddingService {
        let stored = self.stored();
        let object = json!({
            "apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
            "metadata": {"namespace": "t", "name": "s", "uid": "u", "resourceVersion": stored.version.to_string()},
            "spec": {"model": {"uri": "hf://a/b"}, "replicas": stored.replicas, "scaling": stored.scaling},
        });
        serde_json::from_value(object).expect("an EmbeddingService")
    }

    pub(super) async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
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

pub(super) struct World {
    pub(super) api: Api,
    pub(super) client: Client,
    pub(super) seen: StoreWriter<EmbeddingService>,
    pub(super) pods: StoreWriter<Pod>,
    pub(super) sightings: Sightings,
    /// Of each pod, how many seconds it has been there.
    pub(super) ages: Vec<u64>,
    pub(super) news: mpsc::Sender<News>,
    pub(super) registry: Registry,
    pub(super) leader: tokio::task::JoinHandle<()>,
    pub(super) told: u64,
    pub(super) counts: Counts,
    pub(super) waiting: u64,
    /// Pods from this number on end again and again.
    pub(super) fails: usize,
    /// What the wall clock says when each pod is made, in seconds.
    pub(super) wall: fn(usize) -> i64,
}

impl World {
    /// A leader that follows one gateway, and a service as given.
    pub(super) async fn new(replicas: u64, scaling: Value) -> Self {
        let stored = Stored { version: 7, replicas, scaling, writes: Vec::new(), hangs: false };
        let api = Api(Arc::new(Mutex::new(stored)));
        let answers = api.clone();
        let client = Client::new(service_fn(move |request| answers.clone().answer(request)), "t");
        let (news, _) = mpsc::channel(INBOX);
        let mut world = Self {
            api,
            client,
            seen: reflector::store().1,
            pods: reflector::store().1,
            sightings: Sightings::default(),
            ages: vec![STARTS; usize::try_from(replicas).expect("few pods")],
            news,
            registry: Registry::default(),
            leader: tokio::spawn(async {}),
            told: 0,
            counts: Counts::default(),
            waiting: 0,
            fails: usize::MAX,
            wall: |number| 10 * number as i64,
        };
        world.lead().await;
        world
    }

    pub(super) fn writer(&mut self) -> Writer {
        self.registry = Registry::default();
        Writer {
            publisher: Publisher::new(self.client.clone(), "test"),
            client: self.client.clone(),
            decisions: Decisions::new().0,
            metrics: Metrics::new(&mut self.registry),
            services: self.seen.as_reader(),
        }
    }

    /// Another process leads from now on.
    pub(super) async fn lead(&mut self) {
        self.leader.abort();
        self.sightings = Sightings::default();
        let (news, inbox) = mpsc::channel(INBOX);
        self.news = news;
        let autoscaler = Autoscaler {
            writer: self.writer(),
            pods: self.pods.as_reader(),
            sightings: self.sightings.clone(),
        };
        self.leader = tokio::spawn(listen(autoscaler, inbox));
        self.see();
        self.tell(News::Gateways(BTreeSet::from(["g".to_owned()]))).await;
    }

    /// The leader's watch brings what is stored.
    pub(super) fn see(&mut self) {
        let event = watcher::Event::Apply(self.api.object());
        self.seen.apply_watcher_event(&event);
        for number in 0..self.ages.len() {
            let mut pod = pod(number, self.is_ready(number));
            let made = Timestamp::from_second((self.wall)(number)).expect("a time");
            pod.metadata.creation_timestamp = Some(Time(made));
            if number >= self.fails {
                let ended = json!({"terminated": {"exitCode": 1}});
                let container = json!({"name": "inference-pod", "image": "", "imageID": "", "ready": false,
                    "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended});
                let containers = serde_json::from_value(json!([container])).expect("containers");
                pod.status.as_mut().expect("a status").container_statuses = containers;
            }
            self.sightings.note(&pod, now());
            self.pods.apply_watcher_event(&watcher::Event::Apply(pod));
        }
    }

    pub(super) fn is_ready(&self, number: usize) -> bool {
        number < self.fails && self.ages[number] >= STARTS
    }

    /// A second in which so many requests of 50 tokens come. The pods are as many as is stored, and answer what they can.
    pub(super) async fn served(&mut self, arrived: u64) {
        let wanted = usize::try_from(self.api.stored().replicas).expect("few pods");
        for gone in wanted..self.ages.len() {
            self.pods.apply_watcher_event(&watcher::Event::Delete(pod(gone, true)));
        }
        self.ages.resize(wanted, 0);
        let ready = (0..wanted).filter(|number| self.is_ready(*number)).count() as u64;
        let answered = (self.waiting + arrived).min(ready * RATE / 50);
        self.waiting = self.waiting + arrived - answered;
        let Counts { waiting_time, in_hand_time, .. } = &mut self.counts;
        waiting_time.interactive += self.waiting * 1_000_000;
        in_hand_time.interactive += answered * 50 * 1_000_000 / RATE;
        self.counts.arrived += arrived;
        self.counts.answered += answered;
        self.counts.arrived_tokens += arrived * 50;
        self.counts.arrived_squares += arrived * 2500;
        self.counts.answered_tokens += answered * 50;
        let took = if self.waiting > 0 { 2000 } else { 20 };
        (0..answered).for_each(|_| self.counts.latencies.interactive.observe(Duration::from_millis(took)));
        let mut service = ServiceReport { counts: self.counts, ..ServiceReport::default() };
        service.level.waiting.interactive = self.waiting;
        service.level.waiting_tokens.interactive = self.waiting * 50;
        service.wanted = (ready == 0 && self.waiting > 0).then_some(1);
        service.rates = (0..ready).map(|number| (number.to_string(), RATE)).collect();
        self.told += 1;
        let services = [("t/s".to_owned(), service)].into();
        let report = Report { epoch: "e".into(), at: self.told * 1_000_000, services };
        self.tell(News::Report { gateway: "g".into(), report }).await;
        self.pass(Duration::from_secs(1)).await;
        self.ages.iter_mut().for_each(|age| *age += 1);
        self.see();
    }

    pub(super) fn replicas(&self) -> u64 {
        self.api.stored().replicas
    }

    pub(super) async fn tell(&self, news: News) {
        self.news.send(news).await.expect("it listens");
    }

    /// The gateway speaks, and a second passes.
    pub(super) async fn second(&mut self, wanted: bool) {
        self.told += 1;
        let service = ServiceReport { wanted: wanted.then_some(1), ..ServiceReport::default() };
        let services = wanted.then(|| ("t/s".to_owned(), service)).into_iter().collect();
        let report = Report { epoch: "e".into(), at: self.told * 1_000_000, services };
        self.tell(News::Report { gateway: "g".into(), report }).await;
        self.pass(Duration::from_secs(1)).await;
    }

    pub(super) async fn pass(&self, time: Duration) {
        settle().await;
        advance(time).await;
        settle().await;
    }

    pub(super) fn writes(&self) -> Vec<(u64, StatusCode)> {
        self.api.stored().writes.clone()
    }

    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes all");
        text
    }
}

/// Tokens a second of a pod.
pub(super) const RATE: u64 = 1000;

/// Seconds until a pod is ready.
pub(super) const STARTS: u64 = 3;

pub(super) fn pod(number: usize, ready: bool) -> Pod {
    let status = if ready { "True" } else { "False" };
    let pod = json!({
        "metadata": {"namespace": "t", "name": format!("s-{number}"), "uid": number.to_string(),
            "labels": {"kembed.dev/service": "s"}},
        "status": {"conditions": [{"type": "Ready", "status": status}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

/// Lets all that can go on do so, while no time passes.
pub(super) async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}
