//! Asks pods what they have loaded and what they compute on, and remembers the answers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;
use kembed_queue::wire::{INFO_PATH, Info, POD_PORT};
use tokio::time::timeout;

use super::build::CONTAINER;

/// The longest that a pod may take to answer; it does so without waiting for work.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The largest answer that is read.
const BODY_LIMIT: usize = 64 * 1024;
/// Pods of one service that are asked at the same time.
const CONCURRENCY: usize = 8;

/// One run of a pod's container: what it has loaded and computes on does not change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    uid: String,
    restarts: i32,
}

impl Run {
    /// That of the inference container, while it runs. A pod may have others beside it, which a cluster puts there.
    fn of(pod: &Pod) -> Option<Self> {
        let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
        let container = containers.find(|container| container.name == CONTAINER)?;
        container.state.as_ref()?.running.as_ref()?;
        Some(Self { uid: pod.metadata.uid.clone()?, restarts: container.restart_count })
    }
}

/// Answers of pods, by run.
pub struct Infos {
    http: Client<HttpConnector, Empty<Bytes>>,
    known: Mutex<HashMap<Run, Info>>,
}

impl Infos {
    /// Nothing is known yet.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        // A pod is asked once: no connection is kept.
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { http, known: Mutex::default() }
    }

    /// What these pods say, in their order; of one that does not answer, nothing.
    pub async fn of(&self, pods: Vec<Arc<Pod>>) -> Vec<Option<Info>> {
        let asked = stream::iter(pods).map(|pod| async move { self.info(&pod).await });
        asked.buffered(CONCURRENCY).collect().await
    }

    /// Forgets the pods that are not among these.
    pub fn retain<'a>(&self, uids: impl Iterator<Item = &'a str>) {
        let uids: HashSet<&str> = uids.collect();
        self.known().retain(|run, _| uids.contains(&*run.uid));
    }

    async fn info(&self, pod: &Pod) -> Option<Info> {
        let run = Run::of(pod)?;
        if let Some(info) = self.known().get(&run) {
            return Some(info.clone());
        }
        let address = pod.status.as_ref()?.pod_ip.as_deref()?;
        let info = timeout(TIMEOUT, self.ask(address)).await.ok()??;
        self.known().insert(run, info.clone());
        Some(info)
    }

    async fn ask(&self, address: &str) -> Option<Info> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let uri = format!("http://{host}:{POD_PORT}{INFO_PATH}").parse().ok()?;
        let response = self.http.get(uri).await.ok().filter(|response| response.status().is_success())?;
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.ok()?;
        serde_json::from_slice(&body.to_bytes()).ok()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Run, Info>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Infos {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(state: Value, restarts: i32) -> Pod {
        let status = |name: &str, state: Value, restarts: i32| json!({"name": name, "image": "", "imageID": "", "ready": false, "state": state, "restartCount": restarts});
        // As the API server orders them: by name.
        let containers = [status("envoy", json!({"running": {}}), 0), status(CONTAINER, state, restarts)];
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "status": {"containerStatuses": containers}}))
            .expect("a pod")
    }

    /// Once, what a pod had said was believed after its container had started anew, if another stood before that.
    #[test]
    fn a_run_is_one_of_the_inference_container_whatever_runs_beside_it() {
        let run = |restarts| Some(Run { uid: "u".into(), restarts });
        assert_eq!(Run::of(&pod(json!({"running": {}}), 0)), run(0));
        assert_eq!(Run::of(&pod(json!({"running": {}}), 1)), run(1));
        assert_eq!(Run::of(&pod(json!({"waiting": {}}), 1)), None);
    }
}
