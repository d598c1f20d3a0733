//! Which pods of a service are on their way and since when, and how long its pods take to start. Pure: moments are of one
//! clock that only grows, so that a wall clock that is set changes nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use kembed_scaling::Pods;

/// Starts that are remembered: the next is taken to be as long as the median of them.
const STARTS: usize = 8;

/// How long a pod may wait for a node, with nobody saying that one comes, before none is expected.
const NODE_PATIENCE: Duration = Duration::from_secs(60);

/// How long after this process began to lead pods that it sees for the first time may have been there before.
const LISTING: Duration = Duration::from_secs(5);

/// A pod, and when it was seen to become what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// No other pod ever has it.
    pub uid: String,
    /// What it is doing.
    pub stands: Stands,
    /// When it was first seen.
    pub seen: Instant,
    /// When it was first seen ready.
    pub ready: Option<Instant>,
    /// When it was first seen to wait for a node.
    pub waited: Option<Instant>,
}

/// What a pod is doing, as far as the count is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It answers.
    Ready,
    /// It is on its way.
    Starting,
    /// It waits for a node.
    Waiting,
    /// Something keeps it from running, or it ends again and again.
    Failing,
}

/// What is known of the pods of one service that start.
#[derive(Debug)]
pub struct Starting {
    /// When this process began to lead.
    led: Instant,
    /// When each pod was asked for that does not exist yet, the oldest first.
    missing: VecDeque<Instant>,
    pods: BTreeMap<String, Known>,
    with_node: Starts,
    without: Starts,
    /// Whether the pod that started last had waited for a node.
    waited: bool,
}

#[derive(Debug)]
struct Known {
    asked: Instant,
    /// Whether its start can be measured: it is not over, and was seen from its beginning.
    measured: bool,
}

#[derive(Debug, Default)]
struct Starts(VecDeque<Duration>);

impl Starting {
    /// Nothing is known yet by a process that leads since then.
    pub fn new(led: Instant) -> Self {
        Self {
            led,
            missing: VecDeque::new(),
            pods: BTreeMap::new(),
            with_node: Starts::default(),
            without: Starts::default(),
            waited: false,
        }
    }

    /// Takes in what is there: so many pods are `wanted`, and these exist, in the order in which they say that they were made.
    pub fn look(&mut self, wanted: u32, seen: &[PodSeen], now: Instant) -> Pods {
        let seen = self.as_made(seen);
        self.pods.retain(|uid, _| seen.iter().any(|pod| pod.uid == *uid));
        for pod in &seen {
            self.learn(pod);
        }
        let missing = (wanted as usize).saturating_sub(seen.len());
        // What was asked for last is given up first.
        self.missing.truncate(missing);
        self.missing.resize(missing, now);
        let on_its_way = seen.iter().filter(|pod| pod.stands != Stands::Ready);
        let asked = on_its_way.filter_map(|pod| Some(self.pods.get(&pod.uid)?.asked));
        let mut starting: Vec<Duration> =
            asked.chain(self.missing.iter().copied()).map(|at| now.saturating_duration_since(at)).collect();
        starting.sort_unstable_by(|a, b| b.cmp(a));
        let ready = seen.iter().filter(|pod| pod.stands == Stands::Ready).count();
        let in_vain = |pod: &&PodSeen| {
            let waits = pod.waited.filter(|_| pod.stands == Stands::Waiting);
            waits.is_some_and(|since| now.saturating_duration_since(since) >= NODE_PATIENCE)
        };
        Pods {
            wanted,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            starting,
            crash_looping: seen.last().is_some_and(|pod| pod.stands == Stands::Failing),
            no_capacity: seen.iter().any(in_vain),
        }
    }

    /// So many pods are wanted from now on.
    pub fn ask(&mut self, wanted: u32, now: Instant) {
        self.missing.resize((wanted as usize).saturating_sub(self.pods.len()), now);
    }

    /// How long a pod takes from when it is asked for until it answers, if one was seen to. A pod is expected to find a
    /// node, or to wait for one, as the last one did.
    pub fn takes(&self) -> Option<Duration> {
        if self.waited { self.without.median() } else { self.with_node.median() }
    }

    /// In the order in which they were made. What pods say of it is by a wall clock, which may have been set since: it counts
    /// only of those that were there before.
    fn as_made<'a>(&self, seen: &'a [PodSeen]) -> Vec<&'a PodSeen> {
        let mut seen: Vec<&PodSeen> = seen.iter().collect();
        seen.sort_by_key(|pod| pod.seen.max(self.led + LISTING));
        seen
    }

    fn learn(&mut self, pod: &PodSeen) {
        let is_ready = pod.stands == Stands::Ready;
        if !self.pods.contains_key(&pod.uid) {
            let asked = self.missing.pop_front().map_or(pod.seen, |asked| asked.min(pod.seen));
            // Of one that was there before, it is not known when it was asked for.
            let known = Known { asked, measured: pod.seen >= self.led + LISTING };
            self.pods.insert(pod.uid.clone(), known);
        }
        let Some(known) = self.pods.get_mut(&pod.uid) else { return };
        if is_ready && std::mem::take(&mut known.measured) {
            let took = pod.ready.map(|ready| ready.saturating_duration_since(known.asked));
            self.waited = pod.waited.is_some();
            let starts = if self.waited { &mut self.without } else { &mut self.with_node };
            took.into_iter().for_each(|took| starts.push(took));
        }
    }
}

impl Starts {
    fn push(&mut self, took: Duration) {
        self.0.push_back(took);
        if self.0.len() > STARTS {
            self.0.pop_front();
        }
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// By a process that has led for a while, and now.
    fn led() -> (Starting, Instant) {
        let led = Instant::now();
        (Starting::new(led), led + 2 * LISTING)
    }

    fn pod(uid: &str, stands: Stands, seen: Instant) -> PodSeen {
        PodSeen { uid: uid.into(), stands, seen, ready: None, waited: None }
    }

    fn ready(uid: &str, seen: Instant, ready: Instant) -> PodSeen {
        PodSeen { ready: Some(ready), ..pod(uid, Stands::Ready, seen) }
    }

    #[test]
    fn what_was_asked_for_counts_from_then_whether_it_exists_or_not() {
        let (mut starting, t) = led();
        let old = ready("a", t, t);
        assert!(starting.look(1, std::slice::from_ref(&old), t).starting.is_empty());
        starting.ask(3, t + s(1));
        let young = pod("b", Stands::Starting, t + s(2));
        let pods = starting.look(3, &[old.clone(), young], t + s(5));
        assert_eq!((pods.ready, pods.wanted, pods.starting), (1, 3, vec![s(4), s(4)]));
        // One is not wanted any more, and it is the one that does not exist.
        let young = pod("b", Stands::Starting, t + s(2));
        assert_eq!(starting.look(2, &[old, young], t + s(6)).starting, [s(5)]);
    }

    #[test]
    fn a_start_is_measured_from_asking_to_ready() {
        let (mut starting, t) = led();
        starting.look(0, &[], t);
        assert_eq!(starting.takes(), None);
        starting.ask(1, t + s(1));
        starting.look(1, &[pod("a", Stands::Starting, t + s(2))], t + s(3));
        starting.look(1, &[ready("a", t + s(2), t + s(10))], t + s(11));
        assert_eq!(starting.takes(), Some(s(9)));
        // A pod that is not ready for a moment has not been started anew.
        starting.look(1, &[pod("a", Stands::Starting, t + s(2))], t + s(20));
        starting.look(1, &[ready("a", t + s(2), t + s(10))], t + s(21));
        assert_eq!(starting.with_node.0, [s(9)]);
    }

    #[test]
    fn a_pod_that_was_there_before_us_is_not_measured() {
        let t = Instant::now();
        let mut starting = Starting::new(t);
        starting.look(1, &[pod("a", Stands::Starting, t)], t);
        starting.look(1, &[ready("a", t, t + s(9))], t + s(9));
        assert_eq!(starting.takes(), None);
        // Of a service that came later, or that was not looked at before, the first pod is.
        let (mut starting, t) = led();
        starting.look(1, &[ready("a", t, t + s(9))], t + s(9));
        assert_eq!(starting.takes(), Some(s(9)));
    }

    #[test]
    fn one_slow_start_among_many_is_not_expected_again() {
        let (mut starting, t) = led();
        starting.look(0, &[], t);
        for (number, took) in [2, 60, 2, 3, 2].into_iter().enumerate() {
            let at = t + s(100 * number as u64);
            starting.look(0, &[], at);
            starting.ask(1, at);
            starting.look(1, &[ready(&number.to_string(), at, at + s(took))], at + s(took));
        }
        assert_eq!(starting.takes(), Some(s(2)));
    }

    #[test]
    fn pods_that_wait_for_nodes_are_measured_apart() {
        let (mut starting, t) = led();
        starting.look(0, &[], t);
        let mut start = |uid: &str, waited: Option<Instant>| {
            starting.look(0, &[], t);
            starting.ask(1, t);
            let took = if waited.is_some() { s(90) } else { s(3) };
            starting.look(1, &[PodSeen { waited, ..ready(uid, t, t + took) }], t + took);
            starting.takes()
        };
        assert_eq!(start("a", None), Some(s(3)));
        assert_eq!(start("b", Some(t)), Some(s(90)));
        assert_eq!(start("c", None), Some(s(3)));
    }

    #[test]
    fn what_fails_or_waits_in_vain_is_told() {
        let (mut starting, t) = led();
        let failing = pod("b", Stands::Failing, t);
        assert!(starting.look(2, &[ready("a", t, t), failing.clone()], t).crash_looping);
        assert!(
            !starting.look(2, &[failing, ready("a", t, t)], t).crash_looping,
            "the one made last is well"
        );
        let waiting = PodSeen { waited: Some(t), ..pod("c", Stands::Waiting, t) };
        assert!(!starting.look(1, std::slice::from_ref(&waiting), t + NODE_PATIENCE / 2).no_capacity);
        assert!(starting.look(1, &[waiting], t + NODE_PATIENCE).no_capacity);
    }

    /// By the wall clock the one that fails is an hour older than the one that serves, and so it is told first.
    #[test]
    fn which_pod_was_made_last_does_not_hang_on_a_wall_clock() {
        let (mut starting, t) = led();
        let serving = ready("a", t, t);
        let failing = pod("b", Stands::Failing, t + s(10));
        assert!(starting.look(2, &[failing.clone(), serving.clone()], t + s(11)).crash_looping);
        // Of those that were there before, nothing else is known.
        let mut starting = Starting::new(t + s(20));
        assert!(!starting.look(2, &[failing.clone(), serving.clone()], t + s(21)).crash_looping);
        assert!(starting.look(2, &[serving, failing], t + s(21)).crash_looping);
    }

    #[test]
    fn a_pod_that_is_gone_is_asked_for_anew() {
        let (mut starting, t) = led();
        starting.look(1, &[ready("a", t, t)], t);
        assert_eq!(starting.look(1, &[], t + s(60)).starting, [s(0)]);
    }
}
