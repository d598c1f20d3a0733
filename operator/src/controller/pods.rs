//! What a pod is doing, and why it is not running, in words a user can act on. Pure.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod};
use kembed_crds::conditions::Reason;
use kembed_queue::wire::{Failure, FailureReason};

use super::build::{CONTAINER, CREDENTIALS_VOLUME};

/// What keeps something from working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The bounded part.
    pub reason: Reason,
    /// The part for a person.
    pub message: String,
}

impl Hindrance {
    /// With a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a pod is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It has ended or is about to.
    Gone,
    /// It waits for a node, and no node takes it.
    Unschedulable(String),
    /// It waits for a node, and one was ordered for it.
    NodeOrdered(String),
    /// It waits for a node, and who orders nodes says that none can come.
    CapacityRefused(String),
    /// It has a node, but something keeps it from running.
    Hindered(Hindrance),
    /// It is on its way.
    Starting,
    /// Its container runs but is not ready.
    Running,
    /// It says that it can answer requests.
    Ready,
}

impl PodState {
    /// Whether it waits for a node.
    pub fn waits_for_node(&self) -> bool {
        matches!(self, Self::Unschedulable(_) | Self::NodeOrdered(_) | Self::CapacityRefused(_))
    }
}

/// Reads a pod. `events` are those about it; they tell why volumes are not mounted and whether a node comes, which the pod
/// itself does not say.
pub fn state(pod: &Pod, events: &[Event]) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    if ended || pod.metadata.deletion_timestamp.is_some() {
        return PodState::Gone;
    }
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    if let Some(unscheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
        let message = unscheduled.message.clone().unwrap_or_default();
        return node_word(events).unwrap_or(PodState::Unschedulable(message));
    }
    if condition("Ready").is_some_and(|condition| condition.status == "True") {
        return PodState::Ready;
    }
    let containers = status.container_statuses.unwrap_or_default();
    let Some(container) = containers.iter().find(|container| container.name == CONTAINER) else {
        return PodState::Starting;
    };
    container_state(container, events)
}

fn container_state(container: &ContainerStatus, events: &[Event]) -> PodState {
    let state = container.state.clone().unwrap_or_default();
    let waiting = state.waiting.clone().unwrap_or_default();
    let waiting_message = waiting.message.unwrap_or_default();
    let hindered = |reason| PodState::Hindered(Hindrance::new(reason, waiting_message.clone()));
    match waiting.reason.as_deref() {
        Some(
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull"
            | "ImageInspectError",
        ) => {
            return hindered(Reason::ImagePullFailed);
        }
        Some("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
            return hindered(Reason::ContainerNotCreated);
        }
        _ => (),
    }
    // A container that has just been started again is not better yet: what ended it last still holds.
    if let Some(ended) = last_end(container, &state) {
        return PodState::Hindered(why_ended(ended));
    }
    if state.running.is_some() {
        return PodState::Running;
    }
    mount_failure(events).map_or(PodState::Starting, PodState::Hindered)
}

/// How the container last ended, if it did not end well.
fn last_end<'a>(
    container: &'a ContainerStatus,
    state: &'a ContainerState,
) -> Option<&'a ContainerStateTerminated> {
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    state.terminated.as_ref().or(last).filter(|ended| ended.exit_code != 0)
}

fn why_ended(ended: &ContainerStateTerminated) -> Hindrance {
    if ended.reason.as_deref() == Some("OOMKilled") {
        let message = "the inference pod was killed at its memory limit: raise spec.podTemplate.resources.limits.memory";
        return Hindrance::new(Reason::OutOfMemory, message);
    }
    let said = ended.message.as_deref().and_then(Failure::from_termination_message);
    said.map_or_else(
        || {
            Hindrance::new(
                Reason::Crashed,
                format!("the inference pod ended with exit code {}", ended.exit_code),
            )
        },
        |failure| Hindrance::new(reason(failure.reason), failure.message),
    )
}

fn reason(reason: FailureReason) -> Reason {
    match reason {
        FailureReason::ModelNotFound => Reason::ModelNotFound,
        FailureReason::CredentialsMissing => Reason::CredentialsMissing,
        FailureReason::CredentialsRefused => Reason::CredentialsRefused,
        FailureReason::SourceUnreachable => Reason::SourceUnreachable,
        FailureReason::SourceUnsupported => Reason::SourceUnsupported,
        FailureReason::ModelUnsupported => Reason::ModelUnsupported,
        FailureReason::ModelInvalid => Reason::ModelInvalid,
        FailureReason::CacheFull => Reason::CacheFull,
        FailureReason::AcceleratorUnavailable => Reason::AcceleratorUnavailable,
        FailureReason::AcceleratorLost => Reason::AcceleratorLost,
        FailureReason::AcceleratorInaccurate => Reason::AcceleratorInaccurate,
        FailureReason::StartFailed => Reason::StartFailed,
    }
}

/// Who orders nodes, as it calls itself in events.
const KARPENTER: &str = "karpenter";

/// The latest word on a node for the pod, of Karpenter or of the Cluster Autoscaler, if either is there.
fn node_word(events: &[Event]) -> Option<PodState> {
    let said = |event: &Event| {
        let message = event.message.clone().unwrap_or_default();
        let source = event.source.as_ref().and_then(|source| source.component.as_deref());
        let is_karpenter = [source, event.reporting_component.as_deref()].contains(&Some(KARPENTER));
        match event.reason.as_deref()? {
            "TriggeredScaleUp" => Some(PodState::NodeOrdered(message)),
            "Nominated" if is_karpenter => Some(PodState::NodeOrdered(message)),
            "NotTriggerScaleUp" => Some(PodState::CapacityRefused(message)),
            // The scheduler has events of this name too.
            "FailedScheduling" if is_karpenter => Some(PodState::CapacityRefused(message)),
            _ => None,
        }
    };
    let words = events.iter().filter_map(|event| Some((when(event), said(event)?)));
    words.max_by_key(|(when, _)| *when).map(|(_, word)| word)
}

/// What orders events as they happened last. Each time it happens an event is written again, and versions grow as numbers do;
/// its time is that of a wall clock, which may have been set since.
fn when(event: &Event) -> (Option<u64>, Option<jiff::Timestamp>) {
    let version = event.metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
    let repeated = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let repeated = repeated.or(event.event_time.as_ref()).map(|time| time.0);
    (version, event.last_timestamp.as_ref().map(|time| time.0).or(repeated))
}

/// What the kubelet says when it has not yet heard of a Secret or ConfigMap that is there: it passes by itself.
const NOT_YET_HEARD: &str = "failed to sync";

/// The kubelet's latest word on a volume that it could not mount.
fn mount_failure(events: &[Event]) -> Option<Hindrance> {
    let lasting = |event: &&Event| {
        let message = event.message.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some("FailedMount") && !message.contains(NOT_YET_HEARD)
    };
    let event = events.iter().filter(lasting).max_by_key(|event| when(event))?;
    let message = event.message.clone().unwrap_or_default();
    let credentials = message.contains(&format!("\"{CREDENTIALS_VOLUME}\"")) && message.contains("not found");
    let reason = if credentials { Reason::CredentialsNotFound } else { Reason::VolumeNotMounted };
    Some(Hindrance { reason, message })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).expect("a pod")
    }

    fn with_container(state: Value, last: Value) -> Pod {
        pod(json!({
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": state, "lastState": last}],
        }))
    }

    fn event(message: &str) -> Event {
        serde_json::from_value(json!({"metadata": {}, "involvedObject": {}, "reason": "FailedMount",
            "lastTimestamp": "2026-01-01T00:00:00Z", "message": message}))
        .expect("an event")
    }

    fn hindrance(state: PodState) -> Hindrance {
        match state {
            PodState::Hindered(hindrance) => hindrance,
            other => panic!("expected a hindrance, got {other:?}"),
        }
    }

    #[test]
    fn no_node() {
        let message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.";
        let conditions = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
        let pod = pod(json!({"phase": "Pending", "conditions": conditions}));
        assert_eq!(state(&pod, &[]), PodState::Unschedulable(message.into()));
    }

    #[test]
    fn who_orders_nodes_has_the_last_word() {
        let conditions = json!([{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]);
        let pod = pod(json!({"phase": "Pending", "conditions": conditions}));
        let word = |reason: &str, component: &str, second: u32| -> Event {
            serde_json::from_value(json!({"metadata": {}, "involvedObject": {}, "reason": reason,
                "source": {"component": component}, "message": reason,
                "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z")}))
            .expect("an event")
        };
        let ordered = |reason: &str| PodState::NodeOrdered(reason.into());
        let refused = |reason: &str| PodState::CapacityRefused(reason.into());
        let scheduler = word("FailedScheduling", "default-scheduler", 9);
        assert_eq!(
            state(&pod, std::slice::from_ref(&scheduler)),
            PodState::Unschedulable("0/1 nodes".into())
        );
        let no = word("NotTriggerScaleUp", "cluster-autoscaler", 1);
        let yes = word("TriggeredScaleUp", "cluster-autoscaler", 2);
        assert_eq!(state(&pod, &[no.clone(), scheduler.clone()]), refused("NotTriggerScaleUp"));
        assert_eq!(state(&pod, &[yes, no]), ordered("TriggeredScaleUp"));
        let nominated = word("Nominated", KARPENTER, 3);
        assert_eq!(state(&pod, &[nominated.clone(), scheduler]), ordered("Nominated"));
        assert_eq!(
            state(&pod, &[nominated, word("FailedScheduling", KARPENTER, 4)]),
            refused("FailedScheduling")
        );
    }

    /// The wall clock was set back between a node's order and its refusal.
    #[test]
    fn the_last_word_is_the_one_that_was_written_last() {
        let conditions = json!([{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]);
        let pod = pod(json!({"phase": "Pending", "conditions": conditions}));
        let word = |reason: &str, version: &str, time: &str| -> Event {
            serde_json::from_value(json!({"metadata": {"resourceVersion": version}, "involvedObject": {},
                "reason": reason, "message": reason, "lastTimestamp": time}))
            .expect("an event")
        };
        let ordered = word("TriggeredScaleUp", "999", "2026-01-01T12:00:00Z");
        let refused = word("NotTriggerScaleUp", "1000", "2026-01-01T11:00:01Z");
        for events in [[ordered.clone(), refused.clone()], [refused, ordered]] {
            assert_eq!(state(&pod, &events), PodState::CapacityRefused("NotTriggerScaleUp".into()));
        }
    }

    #[test]
    fn image_cannot_be_pulled() {
        let pod = with_container(
            json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}),
            json!({}),
        );
        assert_eq!(hindrance(state(&pod, &[])), Hindrance::new(Reason::ImagePullFailed, "no such host"));
    }

    #[test]
    fn the_pods_own_word_is_passed_on_while_it_waits_and_while_it_tries_again() {
        let said = Failure { reason: FailureReason::ModelNotFound, message: "no model a/b".into() };
        let ended = json!({"terminated": {"exitCode": 1, "message": said.to_termination_message()}});
        for now in [json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"running": {}})] {
            let pod = with_container(now, ended.clone());
            assert_eq!(hindrance(state(&pod, &[])), Hindrance::new(Reason::ModelNotFound, "no model a/b"));
        }
    }

    #[test]
    fn out_of_memory_and_other_ends() {
        let killed =
            with_container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), json!({}));
        assert_eq!(hindrance(state(&killed, &[])).reason, Reason::OutOfMemory);
        let crashed =
            with_container(json!({"terminated": {"exitCode": 139, "message": "no JSON"}}), json!({}));
        assert_eq!(hindrance(state(&crashed, &[])).reason, Reason::Crashed);
    }

    #[test]
    fn a_container_that_ended_well_is_no_hindrance() {
        let pod = with_container(json!({"running": {}}), json!({"terminated": {"exitCode": 0}}));
        assert_eq!(state(&pod, &[]), PodState::Running);
    }

    #[test]
    fn a_missing_secret_is_told_from_another_volume() {
        let creating = with_container(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}));
        let secret = event(
            "MountVolume.SetUp failed for volume \"kembed-credentials\" : secret \"hf-token\" not found",
        );
        assert_eq!(hindrance(state(&creating, &[secret])).reason, Reason::CredentialsNotFound);
        let other = event("MountVolume.SetUp failed for volume \"x\" : timed out");
        assert_eq!(hindrance(state(&creating, &[other])).reason, Reason::VolumeNotMounted);
        assert_eq!(state(&creating, &[]), PodState::Starting);
        // Once, a Secret that the kubelet had not yet heard of was told as a volume that cannot be mounted.
        let early =
            event("MountVolume.SetUp failed for volume \"x\" : failed to sync secret cache: timed out");
        assert_eq!(state(&creating, &[early]), PodState::Starting);
    }

    #[test]
    fn ready_and_gone() {
        let ready = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]);
        assert_eq!(state(&pod(json!({"conditions": ready})), &[]), PodState::Ready);
        assert_eq!(state(&pod(json!({"phase": "Failed", "conditions": ready})), &[]), PodState::Gone);
        let mut leaving = pod(json!({"conditions": ready}));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(state(&leaving, &[]), PodState::Gone);
    }
}
