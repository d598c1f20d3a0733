//! What the controller watches. No more is kept of it than is read, for there may be thousands of services.

use std::fmt::Debug;

use futures::Stream;
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::{EmbeddingService, MANAGED_BY, MANAGED_BY_LABEL};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{deployed::Deployed, observe};
use crate::pauses::Pauses;

/// Where `kubectl apply` keeps all that it was given, once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// All services, and those that change.
pub fn services(
    client: Client,
) -> (Store<EmbeddingService>, impl Stream<Item = watcher::Result<EmbeddingService>>) {
    let slim = |service: &mut EmbeddingService| {
        service.metadata.managed_fields = None; // as large as all else
        if let Some(annotations) = &mut service.metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
        if let Some(status) = &mut service.status {
            status.conditions.shrink_to_fit();
        }
    };
    let (store, events) = watch(Api::all(client), Config::default(), slim);
    (store, events.applied_objects())
}

/// The pods of all services, and those that change or go.
pub fn pods(client: Client) -> (Store<Pod>, impl Stream<Item = watcher::Result<Pod>>) {
    let slim = |pod: &mut Pod| {
        // Most of its size, and never read.
        (pod.metadata.managed_fields, pod.spec) = (None, None);
    };
    let ours = Config::default().labels(&observe::pod_selector());
    let (store, events) = watch(Api::all(client), ours, slim);
    (store, events.touched_objects())
}

/// The Deployments of all services, and those that change or go.
pub fn deployments(client: Client) -> (Store<Deployed>, impl Stream<Item = watcher::Result<Deployed>>) {
    let ours = Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let (store, events) = watch(Api::all(client), ours, Deployed::slim);
    (store, events.touched_objects())
}

fn watch<K>(
    api: Api<K>,
    config: Config,
    slim: impl FnMut(&mut K),
) -> (Store<K>, impl Stream<Item = watcher::Result<Event<K>>>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (store, writer) = reflector::store();
    (store, watcher(api, config).backoff(Pauses::new()).modify(slim).reflect(writer))
}
