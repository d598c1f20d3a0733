//! Tells of changes in the conditions by Kubernetes events. What to tell is decided purely, in [`changes`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kembed_crds::{EmbeddingService, conditions::Reason};
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};

/// Characters of a message that an event can hold.
const NOTE_LIMIT: usize = 1000;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether somebody should look into it.
    pub warning: bool,
    /// Why the condition is what it is now.
    pub reason: String,
    /// In words.
    pub note: String,
}

/// What changed from one set of conditions to the next. Each reason is told once, though several conditions have it.
pub fn changes(before: &[Condition], after: &[Condition]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for condition in after {
        let same = |old: &&Condition| old.type_ == condition.type_ && old.reason == condition.reason;
        let told = changes.iter().any(|change| change.reason == condition.reason);
        if told || before.iter().any(|old| same(&old)) || !worth_telling(condition) {
            continue;
        }
        changes.push(Change {
            warning: is_warning(&condition.reason),
            reason: condition.reason.clone(),
            note: condition.message.chars().take(NOTE_LIMIT).collect(),
        });
    }
    changes
}

/// What is not yet known is no news.
fn worth_telling(condition: &Condition) -> bool {
    condition.status != "Unknown"
}

fn is_warning(reason: &str) -> bool {
    !matches!(
        Reason::parse(reason),
        Some(
            Reason::Serving
                | Reason::Off
                | Reason::ScaledToZero
                | Reason::Starting
                | Reason::RollingOut
                | Reason::Settled
                | Reason::Loaded
                | Reason::Recorded
                | Reason::Scheduled
                | Reason::Attainable
                | Reason::Verified
                | Reason::NodeOrdered
        )
    )
}

/// Publishes the changes. An event that cannot be published is only logged: the status says the same.
pub async fn publish(recorder: &Recorder, object: &EmbeddingService, changes: Vec<Change>) {
    for change in changes {
        let event = Event {
            type_: if change.warning { EventType::Warning } else { EventType::Normal },
            reason: change.reason,
            note: Some(change.note),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, reason = event.reason, "failed to publish an event");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: "words".into(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let before = [condition("Ready", "False", "Starting")];
        let after = [
            condition("Ready", "False", "ModelNotFound"),
            condition("ModelAvailable", "False", "ModelNotFound"),
        ];
        let told = changes(&before, &after);
        assert_eq!(told, [Change { warning: true, reason: "ModelNotFound".into(), note: "words".into() }]);
        assert_eq!(changes(&after, &after), []);
    }

    #[test]
    fn good_news_is_no_warning_and_the_unknown_no_news() {
        let told = changes(
            &[],
            &[condition("Ready", "True", "Serving"), condition("SpaceConsistent", "Unknown", "NotRecorded")],
        );
        assert_eq!(
            told.iter().map(|change| (change.warning, &*change.reason)).collect::<Vec<_>>(),
            [(false, "Serving")]
        );
    }
}
