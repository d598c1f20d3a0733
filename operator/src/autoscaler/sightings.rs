//! When each pod was first seen, and first seen ready: noted as the watch tells it, for who looks once a second sees it up
//! to a second later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::api::core::v1::Pod;

use super::starting::{PodSeen, Stands};
use crate::controller::pods::{self, PodState};

/// What was seen of all pods of services. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Sightings(Arc<Mutex<BTreeMap<String, Sighting>>>);

#[derive(Clone, Copy, Debug)]
struct Sighting {
    seen: Instant,
    ready: Option<Instant>,
    waited: Option<Instant>,
}

impl Sightings {
    /// The watch has told of a pod.
    pub fn note(&self, pod: &Pod, now: Instant) {
        if let (Some(uid), Some(stands)) = (&pod.metadata.uid, stands(pod)) {
            self.all().entry(uid.clone()).or_insert(Sighting::at(now)).learn(stands, now);
        }
    }

    /// A pod, with when it was seen; `None` of one that has ended or is about to.
    pub fn of(&self, pod: &Pod, now: Instant) -> Option<PodSeen> {
        let (uid, stands) = (pod.metadata.uid.clone()?, stands(pod)?);
        let mut sighting = self.all().get(&uid).copied().unwrap_or(Sighting::at(now));
        sighting.learn(stands, now);
        let Sighting { seen, ready, waited } = sighting;
        Some(PodSeen { uid, stands, seen, ready, waited })
    }

    /// Forgets the pods that are not among these.
    pub fn retain<'a>(&self, uids: impl Iterator<Item = &'a str>) {
        let uids: BTreeSet<&str> = uids.collect();
        self.all().retain(|uid, _| uids.contains(uid.as_str()));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Sighting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sighting {
    fn at(now: Instant) -> Self {
        Self { seen: now, ready: None, waited: None }
    }

    fn learn(&mut self, stands: Stands, now: Instant) {
        match stands {
            Stands::Ready => self.ready = self.ready.or(Some(now)),
            Stands::Waiting => self.waited = self.waited.or(Some(now)),
            Stands::Starting | Stands::Failing => (),
        }
    }
}

fn stands(pod: &Pod) -> Option<Stands> {
    match pods::state(pod, &[]) {
        PodState::Gone => None,
        PodState::Ready => Some(Stands::Ready),
        PodState::Unschedulable(_) | PodState::NodeOrdered(_) | PodState::CapacityRefused(_) => {
            Some(Stands::Waiting)
        }
        PodState::Hindered(_) => Some(Stands::Failing),
        PodState::Starting | PodState::Running => Some(Stands::Starting),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn pod(conditions: serde_json::Value) -> Pod {
        let pod = json!({"metadata": {"name": "minilm-1", "uid": "u"}, "status": {"conditions": conditions}});
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn the_first_time_counts() {
        let (sightings, t) = (Sightings::default(), Instant::now());
        let waiting = pod(json!([{"type": "PodScheduled", "status": "False"}]));
        let ready = pod(json!([{"type": "Ready", "status": "True"}]));
        let s = Duration::from_secs;
        for (pod, at) in [(&waiting, 0), (&waiting, 1), (&ready, 5), (&ready, 7)] {
            sightings.note(pod, t + s(at));
        }
        let seen = sightings.of(&ready, t + s(9)).expect("it has not ended");
        assert_eq!((seen.stands, seen.seen), (Stands::Ready, t));
        assert_eq!((seen.waited, seen.ready), (Some(t), Some(t + s(5))));
        sightings.retain(std::iter::empty());
        assert_eq!(sightings.of(&ready, t + s(9)).map(|seen| seen.seen), Some(t + s(9)));
    }

    #[test]
    fn one_that_ends_does_not_count() {
        let mut ending = pod(json!([{"type": "Ready", "status": "True"}]));
        ending.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(Sightings::default().of(&ending, Instant::now()), None);
    }
}
