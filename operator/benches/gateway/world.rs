//! An API server that is made up: it tells gateways of services, pods and other gateways, and of what becomes of them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedSender, unbounded},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::block_on;

/// Labels of the gateways' pods.
pub const GATEWAYS: &str = "app.kubernetes.io/component=gateway";
/// Where those are.
pub const NAMESPACE: &str = "kembed";
/// What every service has recorded, and every pod serves.
pub const SPACE: &str = "sha256:one";

/// The API server.
#[derive(Clone)]
pub struct World {
    /// Where it listens.
    pub address: SocketAddr,
    services: Shelf,
    pods: Shelf,
    gateways: Shelf,
}

/// All objects of one kind.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// By name.
    objects: BTreeMap<String, Value>,
    /// What happened, from the first event on: the version of the whole is how many there were.
    events: Vec<Bytes>,
    watches: Vec<UnboundedSender<Bytes>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    watch: bool,
    #[serde(default)]
    limit: Option<usize>,
    /// How many objects were told already.
    #[serde(default)]
    r#continue: Option<usize>,
    #[serde(default)]
    resource_version: Option<usize>,
}

impl World {
    /// One in which there is nothing, on a thread of its own.
    pub fn start() -> Self {
        let (services, pods, gateways) = (Shelf::default(), Shelf::default(), Shelf::default());
        let own = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let router = [
            ("/apis/kembed.dev/v1alpha1/embeddingservices", &services),
            ("/api/v1/pods", &pods),
            (&own, &gateways),
        ]
        .into_iter()
        .fold(Router::new(), |router, (path, shelf)| {
            router.merge(Router::new().route(path, get(answer)).with_state(shelf.clone()))
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("an open socket");
        std::thread::spawn(move || {
            block_on(async {
                let listener = TcpListener::from_std(listener).expect("a runtime");
                axum::serve(listener, router).await
            })
        });
        Self { address, services, pods, gateways }
    }

    /// A service comes or changes: with this many replicas, and scaling from zero if that is none.
    pub fn put_service(&self, name: &str, replicas: u32) {
        let mut spec = json!({"model": {"uri": "hf://a/b"}, "replicas": replicas});
        if replicas == 0 {
            spec["scaling"] = json!({"minReplicas": 0});
        }
        self.services.put(json!({
            "apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
            "metadata": {"namespace": "team", "name": name},
            "spec": spec,
            "status": {"space": {"digest": SPACE, "dimension": 384, "maxTokens": 256}},
        }));
    }

    /// A pod of a service comes, and is ready.
    pub fn put_pod(&self, service: &str, name: &str, at: SocketAddr) {
        let labels = json!({"app.kubernetes.io/managed-by": "kembed", "kembed.dev/service": service});
        self.pods.put(pod("team", name, labels, "http", at));
    }

    /// A gateway comes, which other gateways reach there.
    pub fn put_gateway(&self, name: &str, internal: SocketAddr) {
        self.gateways.put(pod(NAMESPACE, name, json!({}), "internal", internal));
    }
}

fn pod(namespace: &str, name: &str, labels: Value, port: &str, at: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": labels},
        "spec": {"containers": [{"name": "it", "ports": [{"name": port, "containerPort": at.port()}]}]},
        "status": {"podIP": at.ip(), "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

impl Shelf {
    fn with<R>(&self, act: impl FnOnce(&mut Kept) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, object: Value) {
        self.with(|kept| kept.put(object));
    }
}

impl Kept {
    fn put(&mut self, mut object: Value) {
        object["metadata"]["resourceVersion"] = json!((self.events.len() + 1).to_string());
        let name = object["metadata"]["name"].as_str().expect("an object has a name").to_owned();
        let known = self.objects.insert(name, object.clone());
        let what = if known.is_some() { "MODIFIED" } else { "ADDED" };
        let event = Bytes::from(format!("{}\n", json!({"type": what, "object": object})));
        self.events.push(event.clone());
        self.watches.retain(|watch| watch.unbounded_send(event.clone()).is_ok());
    }

    fn list(&self, limit: Option<usize>, from: usize) -> Value {
        let items: Vec<_> = self.objects.values().skip(from).take(limit.unwrap_or(usize::MAX)).collect();
        let until = from + items.len();
        let mut metadata = json!({"resourceVersion": self.events.len().to_string()});
        if until < self.objects.len() {
            metadata["continue"] = json!(until.to_string());
        }
        json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items})
    }

    /// What happened after that version, and what happens from now on.
    fn watch(&mut self, version: usize) -> Response {
        let (watch, events) = unbounded();
        for event in &self.events[version.min(self.events.len())..] {
            let _ = watch.unbounded_send(event.clone());
        }
        self.watches.push(watch);
        Body::from_stream(events.map(Ok::<_, Infallible>)).into_response()
    }
}

async fn answer(State(shelf): State<Shelf>, Query(asked): Query<Asked>) -> Response {
    shelf.with(|kept| match asked.watch {
        true => kept.watch(asked.resource_version.unwrap_or(0)),
        false => Json(kept.list(asked.limit, asked.r#continue.unwrap_or(0))).into_response(),
    })
}
