//! Writes the count of a service.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kembed_crds::EmbeddingService;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::reflector::{ObjectRef, Store},
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    change::{Change, Written},
    decisions::Decisions,
    metrics::{Metrics, Outcome},
};
use crate::{
    api_errors::words,
    publisher::{Publisher, Told},
};

/// Name under which the autoscaler owns the count.
const FIELD_MANAGER: &str = "kembed-autoscaler";

/// The longest that the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long after it was decided a change may still be sent: a process that was stopped in between goes on with what
/// it knew then.
const STALE: Duration = Duration::from_secs(2);

/// Writes counts.
#[derive(Clone)]
pub struct Writer {
    /// Behind the fence.
    pub client: Client,
    /// Tells of what was done.
    pub publisher: Publisher,
    /// Where the controller reads why.
    pub decisions: Decisions,
    /// Counts.
    pub metrics: Metrics,
    /// All services.
    pub services: Store<EmbeddingService>,
}

impl Writer {
    /// Makes the change, unless the service has changed since it was decided at `now`.
    pub async fn write(self, change: Change, now: Instant) -> (Change, Written) {
        // Before the write, so that the reconciliation that it sets off finds the reason.
        self.decisions.put(
            &change.service,
            self.uid(&change.service).as_deref(),
            change.reason,
            Timestamp::now(),
        );
        let (outcome, written) = match timeout(TIMEOUT, self.send(&change, now)).await {
            Ok(Ok(version)) => (Outcome::Written, Written::Yes(version)),
            Ok(Err(WriteError::Stale)) => (Outcome::Changed, Written::No),
            Ok(Err(WriteError::Refused(kube::Error::Api(status)))) if matches!(status.code, 404 | 409) => {
                (Outcome::Changed, Written::No)
            }
            failed => {
                let error = failed.ok().and_then(Result::err);
                let error = error.as_ref().map(|error| words(error));
                tracing::warn!(
                    service = change.service,
                    to = change.to,
                    error,
                    "failed to write a count; trying again"
                );
                (Outcome::Failed, Written::No)
            }
        };
        let after = super::now().saturating_duration_since(now);
        self.metrics.wrote(change.reason, outcome, after);
        if outcome == Outcome::Written {
            let Change { service, from, to, reason, .. } = &change;
            tracing::info!(service, from, to, reason = reason.as_str(), ?after, "changed a count");
            let note = format!("spec.replicas {from} -> {to}: {}", reason.meaning());
            tokio::spawn(self.tell(service.clone(), reason.as_str(), note));
        }
        (change, written)
    }

    /// Which service has this name now.
    pub fn uid(&self, service: &str) -> Option<String> {
        find(&self.services, service)?.metadata.uid.clone()
    }

    /// The version that the service has after it.
    async fn send(&self, change: &Change, decided: Instant) -> Result<String, WriteError> {
        if super::now().saturating_duration_since(decided) > STALE {
            return Err(WriteError::Stale);
        }
        let (namespace, name) = split(&change.service);
        let patch = json!({"metadata": {"resourceVersion": change.version}, "spec": {"replicas": change.to}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api = Api::<EmbeddingService>::namespaced(self.client.clone(), namespace);
        let scale = api.patch_scale(name, &params, &Patch::Merge(patch)).await?;
        Ok(scale.metadata.resource_version.unwrap_or_default())
    }

    /// By an event.
    pub async fn tell(self, service: String, reason: &'static str, note: String) {
        let Some(object) = find(&self.services, &service) else { return };
        let told = Told { warning: false, reason: reason.into(), note, action: "Scale" };
        self.publisher.publish(&object, told).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("it was decided too long ago")]
    Stale,
    #[error(transparent)]
    Refused(#[from] kube::Error),
}

/// The service `<namespace>/<name>` as it was seen last.
pub fn find(services: &Store<EmbeddingService>, service: &str) -> Option<Arc<EmbeddingService>> {
    let (namespace, name) = split(service);
    services.get(&ObjectRef::new(name).within(namespace))
}

fn split(service: &str) -> (&str, &str) {
    service.split_once('/').unwrap_or_default()
}
