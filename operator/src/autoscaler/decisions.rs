//! Why each count is what it is, on its way from the autoscaler to the status, which the controller alone writes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kembed_crds::{EmbeddingService, ScalingStatus};
use kembed_scaling::Reason;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use super::plan::{Decided, Explained};

/// Services that wait to be looked at for what was explained alone.
const EXPLAINED: usize = 1024;

/// The last decision for each service of which one was made since this process leads. Clones share them.
#[derive(Clone, Debug)]
pub struct Decisions {
    all: Arc<Mutex<BTreeMap<String, Decided>>>,
    explained: mpsc::Sender<ObjectRef<EmbeddingService>>,
}

impl Decisions {
    /// None yet, and the services whose status is to be written for what was explained alone.
    pub fn new() -> (Self, mpsc::Receiver<ObjectRef<EmbeddingService>>) {
        let (explained, services) = mpsc::channel(EXPLAINED);
        (Self { all: Arc::default(), explained }, services)
    }

    /// Decides for the service `<namespace>/<name>`, whose count is about to change.
    pub fn put(&self, service: &str, reason: Reason, now: Timestamp) {
        // The API keeps whole seconds.
        let since = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let scaling = ScalingStatus { reason: reason.as_str().to_owned(), since };
        self.all().entry(service.to_owned()).or_default().scaling = Some(scaling);
    }

    /// The count of the service `<namespace>/<name>` stays, and this is new about it.
    pub fn explain(&self, service: &str, explained: Explained, now: Timestamp) {
        if let Some(reason) = explained.reason {
            self.put(service, reason, now);
        }
        if explained.attainable.is_some() {
            self.all().entry(service.to_owned()).or_default().attainable = explained.attainable;
        }
        let (namespace, name) = service.split_once('/').unwrap_or_default();
        // Where so many wait, the next look at it is soon enough.
        let _ = self.explained.try_send(ObjectRef::new(name).within(namespace));
    }

    /// The last decision for the service `<namespace>/<name>`.
    pub fn get(&self, service: &str) -> Decided {
        self.all().get(service).cloned().unwrap_or_default()
    }

    /// Forgets those of services that are not there any more.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.all().retain(|service, _| exists(service));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Decided>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
