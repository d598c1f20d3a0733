//! An API server that is made up: it tells gateways of services, pods and other gateways, and of what becomes of them.

use std::net::SocketAddr;

use axum::Router;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{client::block_on, shelf::Shelf};

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

impl World {
    /// One in which there is nothing, on a thread of its own.
    pub fn start() -> Self {
        let (services, pods, gateways) = (Shelf::default(), Shelf::default(), Shelf::default());
        let own = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let router = Router::new()
            .merge(services.at("/apis/kembed.dev/v1alpha1/embeddingservices"))
            .merge(pods.at("/api/v1/pods"))
            .merge(gateways.at(&own));
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
