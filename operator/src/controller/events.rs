//! What changes in the conditions are told by Kubernetes events. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kembed_crds::conditions::Reason;

use crate::publisher::Told;

/// What changed from one set of conditions to the next. Each reason is told once, though several conditions have it.
pub fn changes(before: &[Condition], after: &[Condition]) -> Vec<Told> {
    let mut changes: Vec<Told> = Vec::new();
    for condition in after {
        let same = |old: &&Condition| old.type_ == condition.type_ && old.reason == condition.reason;
        let told = changes.iter().any(|change| change.reason == condition.reason);
        if told || before.iter().any(|old| same(&old)) || !worth_telling(condition) {
            continue;
        }
        changes.push(Told {
            warning: is_warning(&condition.reason),
            reason: condition.reason.clone(),
            note: condition.message.clone(),
            action: "Reconcile",
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
        let (reason, note) = ("ModelNotFound".into(), "words".into());
        assert_eq!(told, [Told { warning: true, reason, note, action: "Reconcile" }]);
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
