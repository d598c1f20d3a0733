//! Which services at zero get their first pod. Pure: what was seen and the time are arguments.
//!
//! A wake is a lease on one pod: it outlives the client that asked, for a node may take longer to come than a client waits.
//! It ends when a pod is ready, or when none came by a deadline.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kembed_scaling::Reason;

use super::change::{Change, Written, is_later};

/// How long a wake holds without a pod: longer than clouds take to bring a node with a GPU and pods to load a model.
pub const CAPACITY_DEADLINE: Duration = Duration::from_secs(600);

/// How long after a failed write of an unchanged service the next one follows.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether `spec.scaling` is set.
    pub scales: bool,
    /// The count in its spec.
    pub replicas: i32,
    /// Pods that answer.
    pub ready: i32,
    /// Its `resourceVersion`.
    pub version: String,
}

/// The wakes that hold.
#[derive(Debug, Default)]
pub struct Activations(BTreeMap<String, Lease>);

#[derive(Debug)]
struct Lease {
    since: Instant,
    state: State,
}

/// `Wanted` -> `Writing` -> `Written`, or `Writing` -> `Failed` -> `Writing`.
#[derive(Debug)]
enum State {
    Wanted,
    Writing,
    /// It was decided from this version, and failed then.
    Failed(String, Instant),
    /// The version in which the count is 1.
    Written(String),
}

impl Activations {
    /// Decides which services to wake now. `wanted` are those for which somebody waits though they have no pod.
    pub fn decide(
        &mut self,
        wanted: &BTreeSet<&str>,
        look: impl Fn(&str) -> Option<Seen>,
        now: Instant,
    ) -> Vec<Change> {
        for &service in wanted {
            if look(service)
                .is_some_and(|seen| seen.scales && seen.replicas == 0 && self.is_news(service, &seen))
            {
                self.0.insert(service.to_owned(), Lease { since: now, state: State::Wanted });
            }
        }
        let mut wakes = Vec::new();
        self.0.retain(|service, lease| {
            let expired = now.saturating_duration_since(lease.since) >= CAPACITY_DEADLINE;
            let Some(seen) = look(service).filter(|seen| seen.scales && !expired) else { return false };
            if seen.replicas == 0 && lease.should_write(&seen, now) {
                lease.state = State::Writing;
                wakes.push(Change {
                    service: service.clone(),
                    version: seen.version.clone(),
                    from: 0,
                    to: 1,
                    reason: Reason::Activated,
                });
            }
            !lease.is_served(&seen)
        });
        wakes
    }

    /// A write that [`Activations::decide`] asked for has ended.
    pub fn ended(&mut self, wake: &Change, written: Written, now: Instant) {
        // A lease may be over by now, or be another one that has not asked yet.
        let Some(lease) = self.0.get_mut(&wake.service) else { return };
        if matches!(lease.state, State::Writing) {
            lease.state = match written {
                Written::Yes(version) => State::Written(version),
                Written::No => State::Failed(wake.version.clone(), now),
            };
        }
    }

    /// Whether a service keeps its first pod, though nobody may wait any more.
    pub fn holds(&self, service: &str) -> bool {
        self.0.contains_key(service)
    }

    /// Whether its wake is not written yet.
    pub fn is_writing(&self, service: &str) -> bool {
        self.0.get(service).is_some_and(|lease| !matches!(lease.state, State::Written(_)))
    }

    /// Whether some wake is not written yet, so that it pays to look again soon.
    pub fn is_unsettled(&self) -> bool {
        self.0.values().any(|lease| !matches!(lease.state, State::Written(_)))
    }

    /// Whether a service at zero was not woken yet. One that is still seen as it was before the write is no news; one that
    /// somebody has set to zero since is.
    fn is_news(&self, service: &str, seen: &Seen) -> bool {
        match self.0.get(service).map(|lease| &lease.state) {
            None => true,
            Some(State::Written(version)) => is_later(&seen.version, version),
            Some(_) => false,
        }
    }
}

impl Lease {
    fn should_write(&self, seen: &Seen, now: Instant) -> bool {
        match &self.state {
            State::Wanted => true,
            State::Failed(version, at) => {
                seen.version != *version || now.saturating_duration_since(*at) >= RETRY
            }
            State::Writing | State::Written(_) => false,
        }
    }

    /// Whether there is a pod. A service whose last pods are only just going still counts them as ready, so that only what
    /// was seen after the write counts.
    fn is_served(&self, seen: &Seen) -> bool {
        match &self.state {
            State::Written(version) => {
                seen.ready > 0 && seen.replicas > 0 && is_later(&seen.version, version)
            }
            // Somebody else was faster.
            State::Wanted | State::Failed(..) => seen.ready > 0 && seen.replicas > 0,
            State::Writing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// One service, as the API server has it.
    struct World {
        seen: RefCell<Option<Seen>>,
        activations: Activations,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let seen = Seen { scales: true, replicas: 0, ready: 0, version: "7".into() };
            Self { seen: RefCell::new(Some(seen)), activations: Activations::default(), now: Instant::now() }
        }

        fn decide(&mut self, wanted: bool) -> Vec<Change> {
            let wanted = if wanted { BTreeSet::from(["t/s"]) } else { BTreeSet::new() };
            let seen = self.seen.borrow().clone();
            self.activations.decide(&wanted, |_| seen.clone(), self.now)
        }

        fn see(&self, change: impl FnOnce(&mut Seen)) {
            change(self.seen.borrow_mut().as_mut().expect("it exists"));
        }

        fn woken() -> Self {
            let mut world = Self::new();
            let wake = world.decide(true).pop().expect("a wake");
            world.activations.ended(&wake, Written::Yes("9".into()), world.now);
            world
        }
    }

    #[test]
    fn who_waits_at_zero_gets_one_pod_asked_for_once() {
        let mut world = World::new();
        assert_eq!(world.decide(false), []);
        let wake =
            Change { service: "t/s".into(), version: "7".into(), from: 0, to: 1, reason: Reason::Activated };
        assert_eq!(world.decide(true), std::slice::from_ref(&wake));
        assert_eq!(world.decide(true), [], "it is being written");
        world.activations.ended(&wake, Written::Yes("9".into()), world.now);
        assert_eq!(world.decide(true), [], "the write was not seen yet");
        world.see(|seen| (seen.replicas, seen.version) = (1, "9".into()));
        assert_eq!(world.decide(true), []);
        assert!(world.activations.holds("t/s") && !world.activations.is_unsettled());
    }

    #[test]
    fn what_is_off_or_gone_or_has_pods_is_left_alone() {
        for change in [|seen: &mut Seen| seen.scales = false, |seen: &mut Seen| seen.replicas = 1] {
            let mut world = World::new();
            world.see(change);
            assert_eq!(world.decide(true), []);
            assert!(!world.activations.holds("t/s"));
        }
        let mut world = World::new();
        *world.seen.borrow_mut() = None;
        assert_eq!(world.decide(true), []);
    }

    #[test]
    fn a_wake_holds_without_clients_until_a_pod_is_ready() {
        let mut world = World::woken();
        world.see(|seen| (seen.replicas, seen.version) = (1, "9".into()));
        world.now += CAPACITY_DEADLINE - Duration::from_secs(1);
        world.decide(false);
        assert!(world.activations.holds("t/s"));
        world.see(|seen| (seen.ready, seen.version) = (1, "12".into()));
        world.decide(false);
        assert!(!world.activations.holds("t/s"));
    }

    #[test]
    fn a_wake_that_brings_no_pod_ends_at_the_deadline() {
        let mut world = World::woken();
        world.see(|seen| (seen.replicas, seen.version) = (1, "9".into()));
        world.now += CAPACITY_DEADLINE;
        world.decide(false);
        assert!(!world.activations.holds("t/s"));
    }

    #[test]
    fn a_write_that_failed_is_tried_again_though_the_client_left() {
        let mut world = World::new();
        let wake = world.decide(true).pop().expect("a wake");
        world.activations.ended(&wake, Written::No, world.now);
        assert!(world.activations.is_unsettled());
        assert_eq!(world.decide(false), [], "nothing has changed");
        world.see(|seen| seen.version = "8".into());
        let again = world.decide(false).pop().expect("another try");
        assert_eq!(again.version, "8");
        world.activations.ended(&again, Written::No, world.now);
        world.now += RETRY;
        assert_eq!(world.decide(false).len(), 1, "an API server that was away may be back");
    }

    #[test]
    fn switching_it_off_ends_the_wake() {
        let mut world = World::woken();
        world.see(|seen| (seen.scales, seen.replicas, seen.version) = (false, 0, "10".into()));
        assert_eq!(world.decide(true), []);
        assert!(!world.activations.holds("t/s"));
    }

    #[test]
    fn who_sets_it_to_zero_again_is_not_fought_until_somebody_waits() {
        let mut world = World::woken();
        world.see(|seen| (seen.replicas, seen.version) = (0, "10".into()));
        assert_eq!(world.decide(false), []);
        assert_eq!(world.decide(true).len(), 1);
    }

    /// Pods that are just going still count as ready.
    #[test]
    fn a_service_that_has_just_gone_to_zero_is_woken() {
        let mut world = World::new();
        world.see(|seen| seen.ready = 1);
        assert_eq!(world.decide(true).len(), 1);
        assert!(world.activations.holds("t/s"));
    }

    proptest! {
        /// Whatever happens in whatever order: never two writes at once, and none but from zero with scaling set.
        #[test]
        fn no_write_without_reason(
            events in proptest::collection::vec((0u8..7, any::<bool>(), 0u64..400), 1..60)
        ) {
            let mut world = World::new();
            let mut writing: Option<Change> = None;
            let mut version = 7;
            for (event, wanted, seconds) in events {
                world.now += Duration::from_secs(seconds);
                version += 1;
                let text = version.to_string();
                match event {
                    0 => world.see(|seen| (seen.replicas, seen.version) = (0, text)),
                    1 => world.see(|seen| (seen.replicas, seen.version) = (1, text)),
                    2 => world.see(|seen| (seen.ready, seen.version) = (i32::from(wanted), text)),
                    3 => world.see(|seen| (seen.scales, seen.version) = (wanted, text)),
                    4 => if let Some(wake) = writing.take() {
                        world.see(|seen| (seen.replicas, seen.version) = (1, text.clone()));
                        world.activations.ended(&wake, Written::Yes(text), world.now);
                    },
                    5 => if let Some(wake) = writing.take() {
                        world.activations.ended(&wake, Written::No, world.now);
                    },
                    _ => (),
                }
                for wake in world.decide(wanted) {
                    let seen = world.seen.borrow().clone().expect("it exists");
                    prop_assert!(seen.scales && seen.replicas == 0);
                    prop_assert_eq!(&wake.version, &seen.version);
                    // A lease that ran out while its write hangs may ask again; else one write at a time.
                    writing = Some(wake);
                }
            }
        }
    }
}
