//! Looks at what a service's objects are doing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, Pod};
use kembed_crds::{EmbeddingService, MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    deployed::Deployed,
    info::Infos,
    pods::{self, PodState},
    status::ObservedPod,
};

/// Events of one pod that are read; the kubelet repeats itself.
const EVENT_LIMIT: u32 = 50;

/// Selects the pods of all services.
pub fn pod_selector() -> String {
    format!("{MANAGED_BY_LABEL}={MANAGED_BY},{SERVICE_LABEL}")
}

/// Looks at the pods of a service.
pub async fn pods(
    client: &Client,
    store: &Store<Pod>,
    infos: &Infos,
    namespace: &str,
    name: &str,
) -> Vec<ObservedPod> {
    let mut found: Vec<Arc<Pod>> = store
        .state()
        .into_iter()
        .filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace) && service_of(pod) == Some(name))
        .collect();
    // The oldest first, so that of several pods that become ready at once the same one is asked by every leader.
    found.sort_by(|a, b| age(a).cmp(&age(b)));
    let infos = infos.of(found.clone()).await;
    let mut observed = Vec::with_capacity(found.len());
    for (pod, info) in found.iter().zip(infos) {
        let mut state = pods::state(pod, &[]);
        if state == PodState::Starting || state.waits_for_node() {
            state = pods::state(pod, &events_about(client, pod).await);
        }
        let (space, devices) = info.map(|info| (info.space, info.devices)).unzip();
        observed.push(ObservedPod {
            name: pod.name_any(),
            state,
            space,
            devices: devices.unwrap_or_default(),
        });
    }
    observed
}

/// The name of the service that a pod belongs to.
pub fn service_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(SERVICE_LABEL).map(String::as_str)
}

/// Orders pods as they were made.
pub fn age(pod: &Pod) -> (Option<jiff::Timestamp>, &str) {
    (
        pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        pod.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Events about a pod. Failing to read them only makes the status say less.
async fn events_about(client: &Client, pod: &Pod) -> Vec<Event> {
    let Some(uid) = &pod.metadata.uid else { return Vec::new() };
    let events: Api<Event> =
        Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(EVENT_LIMIT);
    match events.list(&about).await {
        Ok(list) => list.items,
        Err(error) => {
            tracing::debug!(%error, "failed to list the events of a pod");
            Vec::new()
        }
    }
}

/// The Deployment that was made for a service before, as it was seen last.
pub fn deployment(deployments: &Store<Deployed>, object: &EmbeddingService) -> Option<Arc<Deployed>> {
    let (namespace, name) = (object.metadata.namespace.as_deref()?, object.metadata.name.as_deref()?);
    let found = deployments.get(&ObjectRef::new(name).within(namespace))?;
    let owner = object.metadata.uid.as_deref()?;
    found.owner_references().iter().any(|reference| reference.uid == owner).then_some(found)
}
