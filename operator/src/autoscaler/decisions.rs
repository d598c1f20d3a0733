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
    all: Arc<Mutex<BTreeMap<String, Known>>>,
    explained: mpsc::Sender<ObjectRef<EmbeddingService>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Of the service that it was decided for: one of the same name that is made anew is another.
    uid: Option<String>,
    decided: Decided,
}

impl Decisions {
    /// None yet, and the services whose status is to be written for what was explained alone.
    pub fn new() -> (Self, mpsc::Receiver<ObjectRef<EmbeddingService>>) {
        let (explained, services) = mpsc::channel(EXPLAINED);
        (Self { all: Arc::default(), explained }, services)
    }

    /// Decides for the service `<namespace>/<name>` of this `uid`, whose count is about to change.
    pub fn put(&self, service: &str, uid: Option<&str>, reason: Reason, now: Timestamp) {
        // The API keeps whole seconds.
        let since = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let scaling = ScalingStatus { reason: reason.as_str().to_owned(), since };
        self.change(service, uid, |decided| decided.scaling = Some(scaling));
    }

    /// The count of the service `<namespace>/<name>` of this `uid` stays, and this is new about it.
    pub fn explain(&self, service: &str, uid: Option<&str>, explained: Explained, now: Timestamp) {
        if let Some(reason) = explained.reason {
            self.put(service, uid, reason, now);
        }
        if explained.attainable.is_some() {
            self.change(service, uid, |decided| decided.attainable = explained.attainable);
        }
        let (namespace, name) = service.split_once('/').unwrap_or_default();
        // Where so many wait, the next look at it is soon enough.
        let _ = self.explained.try_send(ObjectRef::new(name).within(namespace));
    }

    /// The last decision for the service `<namespace>/<name>` of this `uid`.
    pub fn get(&self, service: &str, uid: Option<&str>) -> Decided {
        let all = self.all();
        let known = all.get(service).filter(|known| known.uid.as_deref() == uid);
        known.map(|known| known.decided.clone()).unwrap_or_default()
    }

    /// Forgets those of services that are not there any more.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.all().retain(|service, _| exists(service));
    }

    fn change(&self, service: &str, uid: Option<&str>, change: impl FnOnce(&mut Decided)) {
        let mut all = self.all();
        let known = all.entry(service.to_owned()).or_default();
        if known.uid.as_deref() != uid {
            *known = Known { uid: uid.map(str::to_owned), ..Known::default() };
        }
        change(&mut known.decided);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once, a service that was deleted and made anew was told what had been decided for the one before.
    #[test]
    fn a_service_of_the_same_name_is_another() {
        let (decisions, _explained) = Decisions::new();
        let reason = |uid: &str| decisions.get("t/s", Some(uid)).scaling.map(|scaling| scaling.reason);
        decisions.put("t/s", Some("a"), Reason::MoreWork, Timestamp::UNIX_EPOCH);
        assert_eq!((reason("a").as_deref(), reason("b")), (Some("MoreWork"), None));
        decisions.put("t/s", Some("b"), Reason::Steady, Timestamp::UNIX_EPOCH);
        assert_eq!((reason("a"), reason("b").as_deref()), (None, Some("Steady")));
    }
}
