//! Who leads, decided from the Lease as it stands. Pure: both clocks are arguments.
//!
//! A standby judges by its own monotonic clock, from the moment it saw the Lease change last, so that clocks of two
//! machines need not agree. A leader stops writing [`RENEW_DEADLINE`] after its last renewal was sent, which is before
//! any standby can take over.
//!
//! The times are short, for somebody may wait at zero meanwhile: a leader that is gone is followed within seven seconds, so that
//! who waits has a vector after ten. What they cost is a small write a second. One that cannot renew in time, as while
//! the API server is slow, only stops writing; it goes on if nobody has led since.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};

/// How long a Lease that does not change keeps standbys away.
pub const LEASE_DURATION: Duration = Duration::from_secs(6);
/// How long after its last renewal was sent a leader may write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(4);
/// Time between two looks at the Lease.
pub const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// What a candidate knows.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    /// The version of the Lease seen last, and when it was first seen.
    seen: Option<(String, Instant)>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// No Lease exists: create it so.
    Create(LeaseSpec),
    /// The Lease is ours, free or has run out: replace it so, if it is unchanged.
    Replace(LeaseSpec),
    /// Somebody else leads.
    Wait,
}

impl Candidate {
    /// A candidate; `identity` must be its own alone.
    pub fn new(identity: &str) -> Self {
        Self { identity: identity.to_owned(), seen: None }
    }

    /// Decides for a leader from the Lease read just now. One that another has held since, or that is gone, is not renewed:
    /// what this process knows may be outdated.
    pub fn renew(&self, lease: Option<&Lease>, wall: Timestamp) -> Step {
        let held = lease.and_then(|lease| lease.spec.as_ref());
        match held.filter(|held| held.holder_identity.as_ref() == Some(&self.identity)) {
            Some(held) => {
                let acquired = held.acquire_time.as_ref().map(|time| time.0);
                Step::Replace(self.spec(acquired, held.lease_transitions.unwrap_or(0), wall))
            }
            None => Step::Wait,
        }
    }

    /// The Lease as given back, so that another may lead at once; `None` if it is another's by now, who then leads.
    pub fn release(&self, lease: Lease) -> Option<Lease> {
        let mut spec = lease.spec.filter(|held| held.holder_identity.as_ref() == Some(&self.identity))?;
        spec.holder_identity = Some(String::new());
        Some(Lease { spec: Some(spec), ..lease })
    }

    /// How long until the next look: a Lease that stands still is taken when it may be.
    pub fn pause(&self, now: Instant) -> Duration {
        let runs_out = self.seen.as_ref().map(|(_, since)| *since + LEASE_DURATION);
        let left = runs_out.map(|end| end.saturating_duration_since(now)).filter(|left| !left.is_zero());
        left.map_or(RETRY_PERIOD, |left| left.min(RETRY_PERIOD))
    }

    /// Decides for a standby from the Lease read just now; `wall` goes into it for people to read and is not judged by.
    pub fn decide(&mut self, lease: Option<&Lease>, now: Instant, wall: Timestamp) -> Step {
        let Some(lease) = lease else {
            return Step::Create(self.spec(Some(wall), 0, wall));
        };
        let held = lease.spec.clone().unwrap_or_default();
        let transitions = held.lease_transitions.unwrap_or(0);
        let holder = held.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            return Step::Replace(self.spec(held.acquire_time.map(|time| time.0), transitions, wall));
        }
        if !holder.is_empty() && !self.ran_out(lease, now) {
            return Step::Wait;
        }
        Step::Replace(self.spec(Some(wall), transitions + 1, wall))
    }

    fn ran_out(&mut self, lease: &Lease, now: Instant) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => {
                now.saturating_duration_since(*since) >= LEASE_DURATION
            }
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    fn spec(&self, acquired: Option<Timestamp>, transitions: i32, wall: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: acquired.map(MicroTime),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    const WALL: Timestamp = Timestamp::UNIX_EPOCH;

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
        }
    }

    fn takes(step: &Step) -> Option<i32> {
        match step {
            Step::Replace(spec) => spec.lease_transitions,
            _ => None,
        }
    }

    #[test]
    fn the_first_creates_and_the_holder_renews() {
        let (mut candidate, now) = (Candidate::new("a"), Instant::now());
        assert!(matches!(candidate.decide(None, now, WALL), Step::Create(_)));
        assert_eq!(takes(&candidate.decide(Some(&lease("a", "1")), now, WALL)), Some(4));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        assert_eq!(takes(&Candidate::new("a").decide(Some(&lease("", "1")), Instant::now(), WALL)), Some(5));
    }

    #[test]
    fn another_holder_keeps_it_while_it_renews() {
        let (mut candidate, start) = (Candidate::new("a"), Instant::now());
        for renewal in 0..10u32 {
            let now = start + LEASE_DURATION * renewal;
            assert_eq!(candidate.decide(Some(&lease("b", &renewal.to_string())), now, WALL), Step::Wait);
        }
    }

    #[test]
    fn a_lease_that_stands_still_is_taken_after_its_duration_by_our_own_clock() {
        let (mut candidate, start) = (Candidate::new("a"), Instant::now());
        let stale = lease("b", "1");
        assert_eq!(candidate.decide(Some(&stale), start, WALL), Step::Wait);
        let almost = start + LEASE_DURATION - Duration::from_millis(1);
        assert_eq!(candidate.decide(Some(&stale), almost, WALL), Step::Wait);
        assert_eq!(takes(&candidate.decide(Some(&stale), start + LEASE_DURATION, WALL)), Some(5));
    }

    #[test]
    fn a_lease_that_another_has_held_is_not_renewed() {
        let candidate = Candidate::new("a");
        assert_eq!(takes(&candidate.renew(Some(&lease("a", "1")), WALL)), Some(4));
        for other in [Some(lease("b", "2")), Some(lease("", "3")), None] {
            assert_eq!(candidate.renew(other.as_ref(), WALL), Step::Wait);
        }
    }

    /// Once, a leader that had lost the Lease without noticing took it from the next one when it was told to end, and a third
    /// led while the second still wrote.
    #[test]
    fn nobody_gives_back_what_another_holds() {
        let candidate = Candidate::new("a");
        let holder = |lease: Lease| lease.spec.and_then(|spec| spec.holder_identity);
        let given_back = candidate.release(lease("a", "1")).expect("its own");
        assert_eq!(
            given_back.metadata.resource_version.as_deref(),
            Some("1"),
            "refused if it changes meanwhile"
        );
        assert_eq!(holder(given_back).as_deref(), Some(""));
        assert_eq!(candidate.release(lease("b", "2")), None);
        assert_eq!(candidate.release(Lease::default()), None);
    }

    #[test]
    fn a_standby_looks_just_when_the_lease_has_run_out() {
        let (mut candidate, start) = (Candidate::new("a"), Instant::now());
        assert_eq!(candidate.pause(start), RETRY_PERIOD);
        candidate.decide(Some(&lease("b", "1")), start, WALL);
        let early = Duration::from_millis(300);
        assert_eq!(candidate.pause(start), RETRY_PERIOD);
        assert_eq!(candidate.pause(start + LEASE_DURATION - early), early);
        assert_eq!(candidate.pause(start + LEASE_DURATION), RETRY_PERIOD, "somebody else was faster");
    }

    /// Two candidates on machines whose wall clocks are set forth and back by an hour, each at other times.
    #[test]
    fn wall_clocks_that_are_set_neither_end_a_leadership_nor_double_it() {
        let hour = jiff::SignedDuration::from_hours(1);
        let start = Instant::now();
        let (leader, mut standby) = (Candidate::new("a"), Candidate::new("b"));
        let mut lease = lease("a", "0");
        for second in 1..=300_u32 {
            let now = start + Duration::from_secs(second.into());
            let set = |every: u32| match second / every % 3 {
                0 => WALL,
                1 => WALL + hour,
                _ => WALL - hour,
            };
            assert_eq!(standby.decide(Some(&lease), now, set(7)), Step::Wait, "after {second} s");
            let Step::Replace(renewed) = leader.renew(Some(&lease), set(11)) else {
                panic!("it leads no more after {second} s");
            };
            assert_eq!(renewed.lease_transitions, Some(4));
            lease.spec = Some(renewed);
            lease.metadata.resource_version = Some(second.to_string());
        }
        // It is gone, and the last that it wrote says that it renewed in an hour from now.
        let gone = start + Duration::from_secs(301);
        assert_eq!(standby.decide(Some(&lease), gone, WALL - hour), Step::Wait);
        assert_eq!(takes(&standby.decide(Some(&lease), gone + LEASE_DURATION, WALL - hour)), Some(5));
    }

    #[test]
    fn a_leader_has_stopped_writing_before_another_can_begin() {
        assert!(RENEW_DEADLINE + RETRY_PERIOD < LEASE_DURATION);
    }
}
