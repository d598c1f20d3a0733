//! What the status says, decided from what was seen. Pure: the time is an argument.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kembed_crds::{
    EmbeddingServiceStatus, SpaceStatus,
    conditions::{ConditionType, Reason},
};
use kembed_queue::{device::Device, wire::Space};

use super::{
    accelerator,
    build::selector_text,
    pods::{Hindrance, PodState},
};
use crate::autoscaler::plan::{Attainable, Decided};

/// What was seen of a service.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// The count its spec asks for.
    pub replicas: i32,
    /// Whether its spec has the count follow the load.
    pub scales: bool,
    /// What was decided on the count lately.
    pub decided: Decided,
    /// The latency that its spec wants to be kept, in the words of the spec.
    pub target: Option<String>,
    /// Whether its spec asks for an accelerator.
    pub accelerator: bool,
    /// The digest that its spec demands.
    pub pinned_digest: Option<String>,
    /// What keeps its objects from being as the spec says.
    pub hindrance: Option<Hindrance>,
    /// Its Deployment.
    pub deployment: DeploymentCounts,
    /// Its pods, in a stable order.
    pub pods: Vec<ObservedPod>,
}

/// The counts of a Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeploymentCounts {
    /// Whether the counts speak of the latest template.
    pub current: bool,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods made from the latest template.
    pub updated: i32,
    /// Pods that say they are ready.
    pub ready: i32,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: PodState,
    /// The vector space it has loaded, if it said so.
    pub space: Option<Space>,
    /// What it computes on beside its CPU, if it said so.
    pub devices: Vec<Device>,
}

/// Decides the status that follows `previous`.
pub fn decide(
    observed: &Observed,
    previous: &EmbeddingServiceStatus,
    now: Timestamp,
) -> EmbeddingServiceStatus {
    let space = previous.space.clone().or_else(|| space_to_record(observed));
    let serving = observed.pods.iter().filter(|pod| serves(observed, pod, space.as_ref())).count();
    let verdicts = Verdicts { observed, space: space.as_ref(), serving };
    let judged = [
        Some((ConditionType::Ready, verdicts.ready())),
        Some((ConditionType::Progressing, verdicts.progressing())),
        Some((ConditionType::ModelAvailable, verdicts.model_available())),
        Some((ConditionType::SpaceConsistent, verdicts.space_consistent())),
        Some((ConditionType::CapacityAvailable, verdicts.capacity_available())),
        observed.target.as_ref().map(|target| {
            (ConditionType::ObjectiveAttainable, verdicts.objective_attainable(target, &previous.conditions))
        }),
        observed.accelerator.then(|| (ConditionType::AcceleratorVerified, verdicts.accelerator_verified())),
    ];
    EmbeddingServiceStatus {
        observed_generation: observed.generation,
        conditions: judged
            .into_iter()
            .flatten()
            .map(|(type_, verdict)| condition(type_, verdict, observed.generation, &previous.conditions, now))
            .collect(),
        replicas: observed.deployment.replicas,
        ready_replicas: i32::try_from(serving).unwrap_or(i32::MAX),
        selector: Some(selector_text(&observed.name)),
        url: Some(format!("http://{}.{}.svc", observed.name, observed.namespace)),
        space,
        scaling: observed
            .decided
            .scaling
            .clone()
            .or_else(|| previous.scaling.clone())
            .filter(|_| observed.scales),
    }
}

/// The space of the first ready pod that may be trusted, unless the spec demands another. Nothing while more are ready than
/// the Deployment counts: a service of this name that was deleted just now has left some, with a space of their own.
fn space_to_record(observed: &Observed) -> Option<SpaceStatus> {
    let ready = || observed.pods.iter().filter(|pod| pod.state == PodState::Ready);
    let counted = usize::try_from(observed.deployment.ready).unwrap_or(0);
    if ready().count() > counted {
        return None;
    }
    let trusted = ready().filter(|pod| is_trusted(observed, pod));
    let space = trusted.filter_map(|pod| pod.space.as_ref()).next()?;
    if observed.pinned_digest.as_ref().is_some_and(|pinned| *pinned != space.digest) {
        return None;
    }
    Some(SpaceStatus {
        digest: space.digest.clone(),
        revision: space.revision.clone(),
        dimension: i32::try_from(space.dimension).ok()?,
        max_tokens: i32::try_from(space.max_tokens).ok()?,
    })
}

fn serves(observed: &Observed, pod: &ObservedPod, recorded: Option<&SpaceStatus>) -> bool {
    let same =
        || pod.space.as_ref().zip(recorded).is_some_and(|(space, recorded)| space.digest == recorded.digest);
    pod.state == PodState::Ready && same() && is_trusted(observed, pod)
}

/// On an accelerator a pod has to have shown that it computes right vectors.
fn is_trusted(observed: &Observed, pod: &ObservedPod) -> bool {
    !observed.accelerator || accelerator::is_trusted(pod)
}

/// Status, reason and message of a condition.
type Verdict = (&'static str, Hindrance);

fn yes(reason: Reason, message: impl Into<String>) -> Verdict {
    ("True", Hindrance::new(reason, message))
}

fn no(hindrance: Hindrance) -> Verdict {
    ("False", hindrance)
}

fn unknown(reason: Reason, message: impl Into<String>) -> Verdict {
    ("Unknown", Hindrance::new(reason, message))
}

struct Verdicts<'a> {
    observed: &'a Observed,
    space: Option<&'a SpaceStatus>,
    serving: usize,
}

impl Verdicts<'_> {
    fn ready(&self) -> Verdict {
        let wanted = self.observed.replicas;
        if self.serving > 0 {
            return yes(Reason::Serving, "requests are answered");
        }
        if let Some(hindrance) = &self.observed.hindrance {
            return no(hindrance.clone());
        }
        if wanted == 0 && self.observed.scales {
            return yes(Reason::ScaledToZero, "no pod runs; the first request for vectors brings one");
        }
        if wanted == 0 {
            return no(Hindrance::new(Reason::Off, "replicas is 0: requests are refused"));
        }
        let hindrance = self.any_hindrance().or_else(|| self.silent());
        no(hindrance.unwrap_or_else(|| Hindrance::new(Reason::Starting, "no pod answers yet")))
    }

    fn progressing(&self) -> Verdict {
        let (wanted, counts) = (self.observed.replicas, self.observed.deployment);
        if let Some(hindrance) = self.observed.hindrance.clone().or_else(|| self.any_hindrance()) {
            return no(hindrance);
        }
        if counts.current && [counts.replicas, counts.updated, counts.ready] == [wanted; 3] {
            return no(Hindrance::new(Reason::Settled, "the pods are as the spec says"));
        }
        yes(Reason::RollingOut, "pods are being created, replaced or removed")
    }

    fn model_available(&self) -> Verdict {
        if self.observed.pods.iter().any(|pod| pod.space.is_some()) {
            return yes(Reason::Loaded, "the model is loaded");
        }
        if let Some(hindrance) = self.pod_hindrance(|reason| MODEL_REASONS.contains(&reason)) {
            return no(hindrance);
        }
        match self.space {
            Some(_) => yes(Reason::Loaded, "the model was loaded before"),
            None => unknown(Reason::Loading, "no pod has loaded the model yet"),
        }
    }

    fn space_consistent(&self) -> Verdict {
        if let Some(hindrance) = self.space_hindrance() {
            return no(hindrance);
        }
        match self.space {
            Some(_) => yes(Reason::Recorded, "all pods serve the recorded vector space"),
            None => unknown(Reason::NotRecorded, "no pod was ready yet"),
        }
    }

    fn capacity_available(&self) -> Verdict {
        if let Some(hindrance) = self.unschedulable() {
            return no(hindrance);
        }
        if self.observed.pods.is_empty() && self.observed.replicas > 0 {
            return unknown(Reason::RollingOut, "no pod exists yet");
        }
        yes(Reason::Scheduled, "every pod has a node")
    }

    /// What an earlier leader has found holds until this one knows.
    fn objective_attainable(&self, target: &str, previous: &[Condition]) -> Verdict {
        match self.observed.decided.attainable {
            Some(Attainable::Yes) => yes(Reason::Attainable, "a request alone is answered within the target"),
            Some(Attainable::No(floor)) => {
                let message = format!("a request alone takes at least {floor:?}, and the target is {target}");
                no(Hindrance::new(Reason::TargetTooLow, message))
            }
            None => {
                let before = last(previous, ConditionType::ObjectiveAttainable);
                let verdict = before.and_then(|before| match Reason::parse(&before.reason)? {
                    Reason::Attainable => Some(yes(Reason::Attainable, before.message.clone())),
                    Reason::TargetTooLow => {
                        Some(no(Hindrance::new(Reason::TargetTooLow, before.message.clone())))
                    }
                    _ => None,
                });
                verdict.unwrap_or_else(|| unknown(Reason::NotMeasured, "too few requests were answered yet"))
            }
        }
    }

    fn accelerator_verified(&self) -> Verdict {
        if let Some(hindrance) = self.pod_hindrance(accelerator::is_reason).or_else(|| self.wrong()) {
            return no(hindrance);
        }
        if let Some(Hindrance { reason, message }) = self.silent() {
            return unknown(reason, message);
        }
        if let Some(message) = accelerator::verified(&self.observed.pods) {
            return yes(Reason::Verified, message);
        }
        let objects = self.observed.hindrance.clone().filter(|found| accelerator::is_reason(found.reason));
        objects.map_or_else(|| unknown(Reason::NotVerified, "no pod has reported on its accelerator"), no)
    }

    /// A pod whose accelerator must not be trusted, where there is to be one.
    fn wrong(&self) -> Option<Hindrance> {
        self.observed.accelerator.then(|| accelerator::wrong(&self.observed.pods)).flatten()
    }

    /// A pod that says nothing of its accelerator, where there is to be one.
    fn silent(&self) -> Option<Hindrance> {
        self.observed.accelerator.then(|| accelerator::silent(&self.observed.pods)).flatten()
    }

    /// What stands in the way, whichever condition knows it.
    fn any_hindrance(&self) -> Option<Hindrance> {
        let of_pods = self.pod_hindrance(|_| true).or_else(|| self.wrong());
        of_pods.or_else(|| self.space_hindrance()).or_else(|| self.unschedulable())
    }

    fn pod_hindrance(&self, belongs: impl Fn(Reason) -> bool) -> Option<Hindrance> {
        self.observed.pods.iter().find_map(|pod| match &pod.state {
            PodState::Hindered(hindrance) if belongs(hindrance.reason) => Some(hindrance.clone()),
            _ => None,
        })
    }

    fn unschedulable(&self) -> Option<Hindrance> {
        self.observed.pods.iter().find_map(|pod| {
            let (reason, message) = match &pod.state {
                PodState::Unschedulable(message) => (Reason::Unschedulable, message),
                PodState::NodeOrdered(message) => (Reason::NodeOrdered, message),
                PodState::CapacityRefused(message) => (Reason::CapacityRefused, message),
                _ => return None,
            };
            Some(Hindrance::new(reason, message.clone()))
        })
    }

    fn space_hindrance(&self) -> Option<Hindrance> {
        let live = self.observed.pods.iter().filter(|pod| pod.state != PodState::Gone);
        let spaces: Vec<(&str, &Space)> =
            live.filter_map(|pod| Some((&*pod.name, pod.space.as_ref()?))).collect();
        if let Some(recorded) = self.space {
            let (pod, other) = spaces.into_iter().find(|(_, space)| space.digest != recorded.digest)?;
            return Some(Hindrance::new(
                Reason::DigestMismatch,
                format!(
                    "pod {pod} loaded {} (revision {}), but {} (revision {}) is recorded",
                    other.digest,
                    revision(other.revision.as_deref()),
                    recorded.digest,
                    revision(recorded.revision.as_deref())
                ),
            ));
        }
        let pinned = self.observed.pinned_digest.as_deref()?;
        let (pod, other) = spaces.into_iter().find(|(_, space)| space.digest != pinned)?;
        let revision = revision(other.revision.as_deref());
        let message = format!(
            "pod {pod} loaded {} (revision {revision}), but spec.model.digest demands {pinned}",
            other.digest
        );
        Some(Hindrance::new(Reason::PinMismatch, message))
    }
}

/// Reasons of pods that speak of the model and its source.
const MODEL_REASONS: [Reason; 9] = [
    Reason::ModelNotFound,
    Reason::CredentialsNotFound,
    Reason::CredentialsMissing,
    Reason::CredentialsRefused,
    Reason::SourceUnreachable,
    Reason::SourceUnsupported,
    Reason::ModelUnsupported,
    Reason::ModelInvalid,
    Reason::CacheFull,
];

/// The condition of that type among those before.
fn last(previous: &[Condition], type_: ConditionType) -> Option<&Condition> {
    previous.iter().find(|condition| condition.type_ == type_.as_str())
}

fn revision(revision: Option<&str>) -> &str {
    revision.unwrap_or("none")
}

fn condition(
    type_: ConditionType,
    (status, Hindrance { reason, message }): Verdict,
    generation: Option<i64>,
    previous: &[Condition],
    now: Timestamp,
) -> Condition {
    let since = last(previous, type_)
        .filter(|condition| condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    Condition {
        type_: type_.as_str().into(),
        status: status.into(),
        reason: reason.as_str().into(),
        message,
        // The API keeps whole seconds.
        last_transition_time: since
            .unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests;
