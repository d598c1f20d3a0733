//! Looks at all services once a second: gathers what is known of each that it pays to look at, and passes on what comes of
//! it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kembed_queue::fleet::{Fleet, Step};

use super::{
    Autoscaler,
    activation::Activations,
    change::Change,
    plan::{Explained, Facts, Judge, Look, Plan},
    seen::Seen,
    starting::PodSeen,
    write::find,
};
use crate::controller::observe;

/// Reasons that are told in one second, each of which makes the controller write a status. Counts that change are not
/// among them.
const TOLD: usize = 10;

/// Looks from one time that what is gone is forgotten to the next.
const SWEEP: u32 = 60;

/// Microseconds that one tuning of a service may take on a machine that is not slow: nothing else is decided meanwhile.
const TUNING: u32 = 20_000;

/// From one tuning of a service to its next, at least.
const TUNED_EACH: Duration = Duration::from_secs(60);

/// Tuning takes one of so many parts of a core.
const TUNING_PART: u32 = 20;

/// What looking takes.
pub struct Looks<J> {
    /// What is decided.
    pub plan: Plan<J>,
    autoscaler: Autoscaler,
    /// Reasons that wait to be told.
    untold: VecDeque<(String, Explained)>,
    looks: u32,
    /// When the next service may be tuned.
    tunes: Instant,
}

impl<J: Judge> Looks<J> {
    /// Has looked at nothing yet.
    pub fn new(autoscaler: Autoscaler, now: Instant) -> Self {
        Self { plan: Plan::new(now), autoscaler, untold: VecDeque::new(), looks: 0, tunes: now }
    }

    /// Looks at all services, and returns what is to be written.
    pub fn all(&mut self, fleet: &mut Fleet, activations: &Activations, now: Instant) -> Vec<Change> {
        let step = fleet.step(now).ok();
        let concerned = self.concerned(step.as_ref(), fleet, activations, now);
        let mut pods = self.pods(&concerned, now);
        let (mut changes, mut needs) = (Vec::new(), BTreeMap::new());
        for (service, Concerned { seen, wanted }) in &concerned {
            let facts = Facts {
                pods: pods.remove(service).unwrap_or_default(),
                counted: step.as_ref().map(|step| {
                    let counts = step.services.get(service).copied().unwrap_or_default();
                    (counts, step.to.saturating_duration_since(step.from))
                }),
                level: fleet.level(service),
                rates: fleet.rates(service).into_values().collect(),
                wanted: *wanted,
                busy: activations.is_writing(service),
            };
            let Look { decision, change, explained } = self.plan.look(service, seen, &facts, now);
            if explained != Explained::default() {
                self.untold.push_back((service.clone(), explained));
            }
            changes.extend(change);
            needs.insert(service.clone(), decision);
        }
        self.tell();
        self.sweep(now);
        self.tune(concerned.keys(), now);
        let metrics = &self.autoscaler.writer.metrics;
        metrics.knows(step.is_some());
        metrics.needs.set(needs);
        metrics.looked(concerned.len(), super::now().saturating_duration_since(now));
        changes
    }

    /// The services that it pays to look at.
    fn concerned(
        &mut self,
        step: Option<&Step>,
        fleet: &Fleet,
        activations: &Activations,
        now: Instant,
    ) -> BTreeMap<String, Concerned> {
        let waited_for = fleet.wanted(now);
        let mut concerned = BTreeMap::new();
        for object in self.autoscaler.writer.services.state() {
            let (Some(seen), Some(service)) = (Seen::of(&object), name(&object.metadata)) else { continue };
            let wanted = waited_for.contains(service.as_str()) || activations.holds(&service);
            let happened = step.map(|step| wanted || step.services.contains_key(&service));
            if self.plan.concerns(&service, &seen, happened) {
                concerned.insert(service, Concerned { seen, wanted });
            }
        }
        concerned
    }

    /// The pods of these services, in the order in which they were made.
    fn pods(&self, of: &BTreeMap<String, Concerned>, now: Instant) -> BTreeMap<String, Vec<PodSeen>> {
        let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in self.autoscaler.pods.state() {
            let service = observe::service_of(&pod).zip(pod.metadata.namespace.as_deref());
            let service = service.map(|(name, namespace)| format!("{namespace}/{name}"));
            if let Some(service) = service.filter(|service| of.contains_key(service)) {
                pods.entry(service).or_default().push(pod);
            }
        }
        let seen = |mut pods: Vec<Arc<Pod>>| {
            pods.sort_by(|a, b| observe::age(a).cmp(&observe::age(b)));
            pods.iter().filter_map(|pod| self.autoscaler.sightings.of(pod, now)).collect()
        };
        pods.into_iter().map(|(service, pods)| (service, seen(pods))).collect()
    }

    fn tell(&mut self) {
        for (service, explained) in self.untold.drain(..self.untold.len().min(TOLD)) {
            let writer = &self.autoscaler.writer;
            let uid = writer.uid(&service);
            writer.decisions.explain(&service, uid.as_deref(), explained, Timestamp::now());
        }
    }

    /// Tunes one service, and then none for so long that it took a small part of the time.
    fn tune<'a>(&mut self, among: impl Iterator<Item = &'a String>, now: Instant) {
        if now < self.tunes {
            return;
        }
        let Some((service, tuned)) = self.plan.tune(among, TUNING, TUNED_EACH, now) else { return };
        let took = super::now().saturating_duration_since(now);
        self.tunes = now + took * TUNING_PART;
        self.autoscaler.writer.metrics.tuned(tuned.is_some(), took);
        if let Some(how) = tuned {
            tracing::info!(service, how, "tuned how a service scales");
            tokio::spawn(self.autoscaler.writer.clone().tell(service.clone(), "Tuned", how));
        }
    }

    fn sweep(&mut self, now: Instant) {
        self.looks = (self.looks + 1) % SWEEP;
        if self.looks == 0 {
            let services = &self.autoscaler.writer.services;
            let scales =
                |name: &str| find(services, name).is_some_and(|object| object.spec.scaling.is_some());
            self.plan.retain(scales, now);
        }
    }
}

/// A service that it pays to look at.
struct Concerned {
    seen: Seen,
    /// Somebody waits though there is no pod, or did and it is not there yet.
    wanted: bool,
}

fn name(meta: &kube::core::ObjectMeta) -> Option<String> {
    Some(format!("{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?))
}
