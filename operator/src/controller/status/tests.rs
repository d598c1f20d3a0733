//! What is said of what was seen.

use kembed_crds::ScalingStatus;

use super::*;
use crate::controller::accelerator::tests::device;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn space(digest: &str) -> Space {
    Space { digest: digest.into(), revision: Some(format!("rev-{digest}")), dimension: 384, max_tokens: 256 }
}

fn pod(state: PodState, digest: Option<&str>) -> ObservedPod {
    ObservedPod { name: "minilm-1".into(), state, space: digest.map(space), devices: Vec::new() }
}

fn observed(pods: Vec<ObservedPod>) -> Observed {
    let replicas = i32::try_from(pods.len()).expect("few pods");
    let counts = DeploymentCounts { current: true, replicas, updated: replicas, ready: replicas };
    Observed {
        name: "minilm".into(),
        namespace: "search".into(),
        replicas: 1,
        deployment: counts,
        pods,
        ..Observed::default()
    }
}

fn recorded(digest: &str) -> EmbeddingServiceStatus {
    decide(&observed(vec![pod(PodState::Ready, Some(digest))]), &EmbeddingServiceStatus::default(), NOW)
}

fn read(status: &EmbeddingServiceStatus, type_: ConditionType) -> (&str, &str) {
    let condition = status.conditions.iter().find(|c| c.type_ == type_.as_str()).expect("always set");
    (&condition.status, &condition.reason)
}

#[test]
fn at_first_nothing_is_known() {
    let status = decide(&observed(vec![]), &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("False", "Starting"));
    assert_eq!(read(&status, ConditionType::ModelAvailable), ("Unknown", "Loading"));
    assert_eq!(read(&status, ConditionType::SpaceConsistent), ("Unknown", "NotRecorded"));
    assert_eq!(status.selector.as_deref(), Some("kembed.dev/service=minilm"));
    assert_eq!(status.url.as_deref(), Some("http://minilm.search.svc"));
}

#[test]
fn the_first_ready_pod_records_its_space() {
    let status = recorded("sha256:a");
    assert_eq!(status.space.as_ref().map(|space| (&*space.digest, space.dimension)), Some(("sha256:a", 384)));
    assert_eq!(status.ready_replicas, 1);
    for (type_, expected) in [
        (ConditionType::Ready, ("True", "Serving")),
        (ConditionType::Progressing, ("False", "Settled")),
        (ConditionType::ModelAvailable, ("True", "Loaded")),
        (ConditionType::SpaceConsistent, ("True", "Recorded")),
        (ConditionType::CapacityAvailable, ("True", "Scheduled")),
    ] {
        assert_eq!(read(&status, type_), expected);
    }
}

#[test]
fn a_pod_that_is_not_ready_records_nothing() {
    let status = decide(
        &observed(vec![pod(PodState::Running, Some("sha256:a"))]),
        &EmbeddingServiceStatus::default(),
        NOW,
    );
    assert_eq!(status.space, None);
}

/// Once, a service that was deleted and made anew with another model got the space of the pods that were still going, for
/// its whole life.
#[test]
fn pods_that_a_deleted_service_of_the_name_has_left_record_nothing() {
    let left = || pod(PodState::Ready, Some("sha256:before"));
    let decided = |seen: &Observed| decide(seen, &EmbeddingServiceStatus::default(), NOW);
    let hindrance = Some(Hindrance::new(Reason::NameConflict, "Deployment minilm is another's"));
    let alone = Observed { deployment: DeploymentCounts::default(), hindrance, ..observed(vec![left()]) };
    let status = decided(&alone);
    assert_eq!((status.space.as_ref(), status.ready_replicas), (None, 0));
    let own =
        |seen: Observed| Observed { deployment: DeploymentCounts { ready: 1, ..seen.deployment }, ..seen };
    let beside = own(observed(vec![left(), pod(PodState::Ready, Some("sha256:a"))]));
    assert_eq!(decided(&beside).space, None, "it is not known which of them is the Deployment's");
    let gone = own(observed(vec![
        pod(PodState::Gone, Some("sha256:before")),
        pod(PodState::Ready, Some("sha256:a")),
    ]));
    assert_eq!(decided(&gone).space.map(|space| space.digest).as_deref(), Some("sha256:a"));
}

#[test]
fn another_space_is_refused_and_both_revisions_are_named() {
    let pods = vec![pod(PodState::Ready, Some("sha256:b"))];
    let status = decide(&observed(pods), &recorded("sha256:a"), NOW);
    assert_eq!(status.space.as_ref().map(|space| &*space.digest), Some("sha256:a"));
    assert_eq!(read(&status, ConditionType::SpaceConsistent), ("False", "DigestMismatch"));
    assert_eq!(read(&status, ConditionType::Ready), ("False", "DigestMismatch"));
    assert_eq!(status.ready_replicas, 0);
    let message = &status.conditions.iter().find(|c| c.type_ == "SpaceConsistent").expect("set").message;
    assert!(message.contains("rev-sha256:a") && message.contains("rev-sha256:b"), "{message}");
}

#[test]
fn a_pinned_digest_is_demanded_before_anything_is_recorded() {
    let mut seen = observed(vec![pod(PodState::Ready, Some("sha256:b"))]);
    seen.pinned_digest = Some("sha256:a".into());
    let status = decide(&seen, &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(
        (status.space.as_ref(), read(&status, ConditionType::SpaceConsistent)),
        (None, ("False", "PinMismatch"))
    );
}

#[test]
fn a_service_that_answers_is_ready_whatever_else_is_wrong() {
    let hindered = PodState::Hindered(Hindrance::new(Reason::ImagePullFailed, "no such image"));
    let pods = vec![pod(PodState::Ready, Some("sha256:a")), pod(hindered, None)];
    let status = decide(&observed(pods), &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("True", "Serving"));
    assert_eq!(read(&status, ConditionType::Progressing), ("False", "ImagePullFailed"));
}

#[test]
fn ready_has_the_reason_of_what_stands_in_the_way() {
    for (state, type_, reason) in [
        (PodState::Unschedulable("no gpu".into()), ConditionType::CapacityAvailable, "Unschedulable"),
        (PodState::NodeOrdered("soon".into()), ConditionType::CapacityAvailable, "NodeOrdered"),
        (PodState::CapacityRefused("never".into()), ConditionType::CapacityAvailable, "CapacityRefused"),
        (
            PodState::Hindered(Hindrance::new(Reason::ModelNotFound, "")),
            ConditionType::ModelAvailable,
            "ModelNotFound",
        ),
        (
            PodState::Hindered(Hindrance::new(Reason::OutOfMemory, "")),
            ConditionType::Progressing,
            "OutOfMemory",
        ),
    ] {
        let status = decide(&observed(vec![pod(state, None)]), &EmbeddingServiceStatus::default(), NOW);
        assert_eq!(read(&status, ConditionType::Ready), ("False", reason));
        assert_eq!(read(&status, type_), ("False", reason));
    }
}

#[test]
fn a_hindrance_of_the_objects_comes_first() {
    let mut seen = observed(vec![]);
    seen.hindrance = Some(Hindrance::new(Reason::NameConflict, "Service minilm is not ours"));
    let status = decide(&seen, &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("False", "NameConflict"));
    assert_eq!(read(&status, ConditionType::Progressing), ("False", "NameConflict"));
}

#[test]
fn zero_is_off() {
    let mut seen = observed(vec![]);
    seen.replicas = 0;
    let status = decide(&seen, &recorded("sha256:a"), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("False", "Off"));
    assert_eq!(read(&status, ConditionType::CapacityAvailable), ("True", "Scheduled"));
    assert_eq!(read(&status, ConditionType::ModelAvailable), ("True", "Loaded"));
}

#[test]
fn zero_with_scaling_is_ready() {
    let mut seen = observed(vec![]);
    (seen.replicas, seen.scales) = (0, true);
    let status = decide(&seen, &recorded("sha256:a"), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("True", "ScaledToZero"));
    seen.hindrance = Some(Hindrance::new(Reason::NameConflict, "Service minilm is not ours"));
    let status = decide(&seen, &recorded("sha256:a"), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("False", "NameConflict"));
}

#[test]
fn why_the_count_is_what_it_is_stays_as_long_as_it_is_followed() {
    let decision = |reason: &str| ScalingStatus { reason: reason.into(), since: Time(NOW) };
    let mut seen = observed(vec![]);
    (seen.scales, seen.decided.scaling) = (true, Some(decision("Activated")));
    let first = decide(&seen, &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(first.scaling, Some(decision("Activated")));
    seen.decided.scaling = None;
    let by_the_next_leader = decide(&seen, &first, NOW);
    assert_eq!(by_the_next_leader.scaling, Some(decision("Activated")));
    seen.scales = false;
    assert_eq!(decide(&seen, &first, NOW).scaling, None);
}

#[test]
fn whether_the_objective_can_be_kept_is_told_where_there_is_one() {
    let mut seen = observed(vec![]);
    let has = |status: &EmbeddingServiceStatus| {
        status.conditions.iter().any(|c| c.type_ == ConditionType::ObjectiveAttainable.as_str())
    };
    assert!(!has(&decide(&seen, &EmbeddingServiceStatus::default(), NOW)));
    seen.target = Some("50ms".into());
    let first = decide(&seen, &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(read(&first, ConditionType::ObjectiveAttainable), ("Unknown", "NotMeasured"));
    seen.decided.attainable = Some(Attainable::No(std::time::Duration::from_millis(96)));
    let told = decide(&seen, &first, NOW);
    assert_eq!(read(&told, ConditionType::ObjectiveAttainable), ("False", "TargetTooLow"));
    let message = &told.conditions.iter().find(|c| c.reason == "TargetTooLow").expect("set").message;
    assert_eq!(message, "a request alone takes at least 96ms, and the target is 50ms");
    seen.decided.attainable = None;
    assert_eq!(decide(&seen, &told, NOW), told, "the next leader does not know yet");
    seen.decided.attainable = Some(Attainable::Yes);
    let again = decide(&seen, &told, NOW);
    assert_eq!(read(&again, ConditionType::ObjectiveAttainable), ("True", "Attainable"));
}

#[test]
fn the_accelerator_is_spoken_of_only_where_one_is_asked_for() {
    let has =
        |status: &EmbeddingServiceStatus| status.conditions.iter().any(|c| c.type_ == "AcceleratorVerified");
    assert!(!has(&recorded("sha256:a")));
    let unavailable = PodState::Hindered(Hindrance::new(Reason::AcceleratorUnavailable, "no driver"));
    let mut seen = observed(vec![pod(unavailable, None)]);
    seen.accelerator = true;
    let status = decide(&seen, &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(read(&status, ConditionType::AcceleratorVerified), ("False", "AcceleratorUnavailable"));
}

/// What is decided for a service that wants an accelerator, of pods with these devices; and what was recorded.
fn on_accelerators(pods: Vec<(PodState, &[f64])>) -> EmbeddingServiceStatus {
    let pods = pods.into_iter().map(|(state, cosines)| ObservedPod {
        devices: cosines.iter().map(|cosine| device(*cosine)).collect(),
        ..pod(state, Some("sha256:a"))
    });
    let seen = Observed { accelerator: true, ..observed(pods.collect()) };
    decide(&seen, &EmbeddingServiceStatus::default(), NOW)
}

#[test]
fn a_verified_accelerator_makes_a_service_ready() {
    let status = on_accelerators(vec![(PodState::Ready, &[0.9998, 0.9997])]);
    assert_eq!(read(&status, ConditionType::AcceleratorVerified), ("True", "Verified"));
    assert_eq!(read(&status, ConditionType::Ready), ("True", "Serving"));
    assert_eq!(status.ready_replicas, 1);
    let message = &status.conditions.iter().find(|c| c.reason == "Verified").expect("set").message;
    assert!(message.contains("NVIDIA H100") && message.contains("0.999700"), "{message}");
}

#[test]
fn a_service_is_not_ready_by_a_pod_whose_accelerator_is_not_verified() {
    for (cosines, verified, reason) in
        [(&[][..], "Unknown", "NotVerified"), (&[0.9998, 0.5], "False", "AcceleratorInaccurate")]
    {
        let status = on_accelerators(vec![(PodState::Ready, cosines)]);
        assert_eq!(read(&status, ConditionType::AcceleratorVerified), (verified, reason));
        assert_eq!(read(&status, ConditionType::Ready), ("False", reason));
        assert_eq!((status.ready_replicas, status.space), (0, None), "{reason}");
    }
}

#[test]
fn a_broken_accelerator_beside_a_good_one_is_told_and_the_good_one_serves() {
    for (state, cosines, reason) in [
        (PodState::Ready, &[0.5][..], "AcceleratorInaccurate"),
        (
            PodState::Hindered(Hindrance::new(Reason::AcceleratorInaccurate, "0.5")),
            &[],
            "AcceleratorInaccurate",
        ),
        (PodState::Hindered(Hindrance::new(Reason::AcceleratorLost, "719")), &[], "AcceleratorLost"),
    ] {
        let status = on_accelerators(vec![(PodState::Ready, &[0.9998]), (state, cosines)]);
        assert_eq!(read(&status, ConditionType::AcceleratorVerified), ("False", reason));
        assert_eq!(read(&status, ConditionType::Ready), ("True", "Serving"));
        assert_eq!(read(&status, ConditionType::Progressing), ("False", reason));
        assert_eq!(status.ready_replicas, 1);
    }
}

#[test]
fn nothing_is_known_of_accelerators_while_no_pod_has_reported() {
    let starting = ObservedPod { space: None, ..pod(PodState::Running, None) };
    for pods in [vec![], vec![starting]] {
        let seen = Observed { accelerator: true, ..observed(pods) };
        let status = decide(&seen, &EmbeddingServiceStatus::default(), NOW);
        assert_eq!(read(&status, ConditionType::AcceleratorVerified), ("Unknown", "NotVerified"));
        assert_eq!(read(&status, ConditionType::Ready), ("False", "Starting"));
    }
}

#[test]
fn without_an_image_there_is_no_accelerator() {
    let hindrance = Some(Hindrance::new(Reason::AcceleratorUnavailable, "no image with CUDA is configured"));
    let decided = |pods| {
        let seen = Observed { accelerator: true, hindrance: hindrance.clone(), ..observed(pods) };
        decide(&seen, &EmbeddingServiceStatus::default(), NOW)
    };
    let status = decided(vec![]);
    for type_ in [ConditionType::AcceleratorVerified, ConditionType::Ready, ConditionType::Progressing] {
        assert_eq!(read(&status, type_), ("False", "AcceleratorUnavailable"));
    }
    // What was made when there was one goes on.
    let devices = vec![device(0.9998)];
    let pods = vec![ObservedPod { devices, ..pod(PodState::Ready, Some("sha256:a")) }];
    let status = decided(pods);
    assert_eq!(read(&status, ConditionType::AcceleratorVerified), ("True", "Verified"));
    assert_eq!(read(&status, ConditionType::Ready), ("True", "Serving"));
    assert_eq!(read(&status, ConditionType::Progressing), ("False", "AcceleratorUnavailable"));
}

#[test]
fn what_cpus_serve_needs_no_accelerator_that_is_verified() {
    let broken = ObservedPod { devices: vec![device(0.5)], ..pod(PodState::Ready, Some("sha256:a")) };
    let status = decide(&observed(vec![broken]), &EmbeddingServiceStatus::default(), NOW);
    assert_eq!(read(&status, ConditionType::Ready), ("True", "Serving"));
}

#[test]
fn time_moves_only_when_the_status_does() {
    let later = Timestamp::from_second(100).expect("in range");
    let pods = || vec![pod(PodState::Ready, Some("sha256:a"))];
    let (first, second) = (recorded("sha256:a"), decide(&observed(pods()), &recorded("sha256:a"), later));
    assert_eq!(first, second, "the same sight gives the same status, so that nothing is written");
    let gone = decide(&observed(vec![]), &first, later);
    let ready = gone.conditions.iter().find(|c| c.type_ == "Ready").expect("set");
    assert_eq!(ready.last_transition_time.0, later);
}
