//! Writes the count of a service that is woken.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kembed_crds::{EmbeddingService, conditions::ScalingReason};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{
        events::{Event, EventType, Recorder},
        reflector::{ObjectRef, Store},
    },
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    activation::{Wake, Written},
    decisions::Decisions,
    metrics::{Metrics, Outcome},
};

/// Name under which the autoscaler owns the count.
const FIELD_MANAGER: &str = "kembed-autoscaler";

/// The longest that the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Wakes services.
#[derive(Clone)]
pub struct Waker {
    /// Behind the fence.
    pub client: Client,
    /// Tells of what was done.
    pub recorder: Recorder,
    /// Where the controller reads why.
    pub decisions: Decisions,
    /// Counts.
    pub metrics: Metrics,
    /// All services.
    pub services: Store<EmbeddingService>,
}

impl Waker {
    /// Makes the count 1, unless the service has changed since that was decided. `heard` is when a gateway asked for it.
    pub async fn wake(self, wake: Wake, heard: Instant) -> (Wake, Written) {
        // Before the write, so that the reconciliation that it sets off finds the reason.
        self.decisions.put(&wake.service, ScalingReason::Activated, Timestamp::now());
        let (outcome, written) = match timeout(TIMEOUT, self.write(&wake)).await {
            Ok(Ok(version)) => (Outcome::Woken, Written::Yes(version)),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                (Outcome::Changed, Written::No)
            }
            failed => {
                let error = failed.ok().and_then(Result::err);
                let error = error.as_ref().map(|error| error as &dyn Error);
                tracing::warn!(service = wake.service, error, "failed to wake a service; trying again");
                (Outcome::Failed, Written::No)
            }
        };
        let after = heard.elapsed();
        self.metrics.woke(outcome, after);
        if outcome == Outcome::Woken {
            tracing::info!(service = wake.service, ?after, "woke a service: somebody waits for it");
            tokio::spawn(self.tell(wake.service.clone()));
        }
        (wake, written)
    }

    /// The version that the service has after it.
    async fn write(&self, wake: &Wake) -> kube::Result<String> {
        let (namespace, name) = split(&wake.service);
        let patch = json!({"metadata": {"resourceVersion": wake.version}, "spec": {"replicas": 1}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api = Api::<EmbeddingService>::namespaced(self.client.clone(), namespace);
        let scale = api.patch_scale(name, &params, &Patch::Merge(patch)).await?;
        Ok(scale.metadata.resource_version.unwrap_or_default())
    }

    /// An event that cannot be published is only logged: the status says the same.
    async fn tell(self, service: String) {
        let Some(object) = find(&self.services, &service) else { return };
        let event = Event {
            type_: EventType::Normal,
            reason: ScalingReason::Activated.as_str().into(),
            note: Some("somebody asked for vectors and there was no pod: spec.replicas is 1 now".into()),
            action: "Scale".into(),
            secondary: None,
        };
        let object: &EmbeddingService = &object;
        let reference = kube::Resource::object_ref(object, &());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::warn!(%error, reason = event.reason, "failed to publish an event");
        }
    }
}

/// The service `<namespace>/<name>` as it was seen last.
pub fn find(services: &Store<EmbeddingService>, service: &str) -> Option<std::sync::Arc<EmbeddingService>> {
    let (namespace, name) = split(service);
    services.get(&ObjectRef::new(name).within(namespace))
}

fn split(service: &str) -> (&str, &str) {
    service.split_once('/').unwrap_or_default()
}
