//! Why each count is what it is, on its way from the autoscaler to the status, which the controller alone writes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kembed_crds::{ScalingStatus, conditions::ScalingReason};

/// The last decision for each service of which one was made since this process leads. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Decisions(Arc<Mutex<BTreeMap<String, ScalingStatus>>>);

impl Decisions {
    /// Decides for the service `<namespace>/<name>`.
    pub fn put(&self, service: &str, reason: ScalingReason, now: Timestamp) {
        // The API keeps whole seconds.
        let since = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let decision = ScalingStatus { reason: reason.as_str().to_owned(), since };
        self.all().insert(service.to_owned(), decision);
    }

    /// The last decision for the service `<namespace>/<name>`.
    pub fn get(&self, service: &str) -> Option<ScalingStatus> {
        self.all().get(service).cloned()
    }

    /// Forgets those of services that are not there any more.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.all().retain(|service, _| exists(service));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, ScalingStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
