//! What is written, and what is shown to who decides.

use kembed_scaling::Terms;

use super::*;
use crate::autoscaler::{settings::settings, starting::Stands};

/// Decides what it is told to, and remembers what it was shown.
#[derive(Debug)]
struct Scripted {
    settings: Settings,
    replicas: Option<u32>,
    shown: Vec<Observation>,
}

impl Judge for Scripted {
    fn new(settings: Settings) -> Self {
        Self { settings, replicas: None, shown: Vec::new() }
    }

    fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    fn decide(&mut self, seen: &Observation) -> Decision {
        self.shown.push(seen.clone());
        let replicas = self.replicas.unwrap_or(seen.pods.wanted);
        let unattainable = seen.speed.floor.filter(|floor| *floor > S);
        Decision { replicas, reason: Reason::Steady, terms: Terms::default(), unattainable }
    }

    fn tune(&mut self, budget: u32) -> Option<String> {
        Some(format!("for {budget}"))
    }
}

const NAME: &str = "t/s";

struct World {
    plan: Plan<Scripted>,
    seen: Seen,
    facts: Facts,
    now: Instant,
}

impl World {
    fn new(min: u32, max: u32, replicas: u32) -> Self {
        let scaling = serde_json::json!({"minReplicas": min, "maxReplicas": max});
        let scaling = serde_json::from_value(scaling).expect("a spec");
        let (settings, now) = (settings(&scaling), Instant::now());
        let seen = Seen {
            uid: "u".into(),
            settings,
            replicas,
            version: "7".into(),
            told: None,
            told_attainable: None,
            node_comes: None,
        };
        let mut world = Self { plan: Plan::new(now), seen, facts: Facts::default(), now };
        world.happens(0);
        world.pods(replicas);
        world
    }

    /// So many pods are ready.
    fn pods(&mut self, ready: u32) {
        let pod = |number: u32| PodSeen {
            uid: number.to_string(),
            stands: Stands::Ready,
            seen: self.now,
            ready: Some(self.now),
            waited: None,
        };
        self.facts.pods = (0..ready).map(pod).collect();
    }

    fn happens(&mut self, arrived: u64) {
        self.facts.counted = Some((Counts { arrived, ..Counts::default() }, S));
    }

    fn decides(&mut self, replicas: u32) {
        self.plan.services.get_mut(NAME).expect("it was looked at").judge.replicas = Some(replicas);
    }

    fn look(&mut self) -> Option<Change> {
        self.now += S;
        self.plan.look(NAME, &self.seen, &self.facts, self.now).change
    }

    fn shown(&self) -> &[Observation] {
        &self.plan.services[NAME].judge.shown
    }
}

const S: Duration = Duration::from_secs(1);

fn to(change: Option<Change>) -> Option<u32> {
    change.map(|change| change.to)
}

#[test]
fn a_decision_is_written_once_and_what_follows_is_decided_from_it() {
    let mut world = World::new(0, 8, 1);
    assert_eq!(world.look(), None);
    world.decides(3);
    let change = world.look().expect("a change");
    assert_eq!((change.from, change.to, &*change.version), (1, 3, "7"));
    assert_eq!(world.look(), None, "it is being written");
    world.plan.ended(&change, Written::Yes("9".into()), world.now);
    world.decides(5);
    assert_eq!(world.look(), None, "what was written was not seen yet");
    assert_eq!(world.shown().last().expect("a look").pods.wanted, 3);
    (world.seen.replicas, world.seen.version) = (3, "9".into());
    let change = world.look().expect("a change");
    assert_eq!((change.from, change.to, &*change.version), (3, 5, "9"));
}

#[test]
fn who_was_faster_is_looked_at_again() {
    let mut world = World::new(0, 8, 1);
    world.look();
    world.decides(3);
    let change = world.look().expect("a change");
    world.plan.ended(&change, Written::No, world.now);
    (world.seen.replicas, world.seen.version) = (4, "8".into());
    let change = world.look().expect("a change");
    assert_eq!((change.from, change.to, &*change.version), (4, 3, "8"));
    world.plan.ended(&change, Written::No, world.now);
    assert_eq!(world.plan.look(NAME, &world.seen, &world.facts, world.now).change, None, "not at once");
    assert_eq!(to(world.look()), Some(3), "an API server that was away may be back");
}

#[test]
fn a_count_out_of_its_bounds_is_brought_in_though_nobody_asks() {
    let mut world = World::new(2, 4, 7);
    assert!(world.plan.concerns(NAME, &world.seen, Some(false)));
    assert_eq!(to(world.look()), Some(4));
    let mut world = World::new(2, 4, 1);
    assert_eq!(to(world.look()), Some(2));
    let mut world = World::new(2, 4, 2);
    assert!(!world.plan.concerns(NAME, &world.seen, Some(false)), "there is nothing to do");
    assert!(world.plan.concerns(NAME, &world.seen, Some(true)));
    assert_eq!(world.look(), None);
}

#[test]
fn no_decision_leaves_the_bounds() {
    let mut world = World::new(2, 4, 3);
    world.look();
    world.decides(100);
    assert_eq!(to(world.look()), Some(4));
    let mut world = World::new(2, 4, 3);
    world.look();
    world.decides(0);
    assert_eq!(to(world.look()), Some(2));
}

#[test]
fn the_first_pod_comes_alone() {
    let mut world = World::new(3, 8, 0);
    let change = world.look().expect("a change");
    assert_eq!(change.to, 1);
    world.plan.ended(&change, Written::Yes("8".into()), world.now);
    (world.seen.replicas, world.seen.version) = (1, "8".into());
    assert_eq!(world.look(), None, "it is on its way");
    world.pods(1);
    assert_eq!(to(world.look()), Some(3));
}

#[test]
fn at_zero_an_activation_writes_and_then_holds() {
    let mut world = World::new(0, 8, 0);
    world.look();
    world.decides(2);
    assert_eq!(world.look(), None);
    (world.seen.replicas, world.facts.wanted) = (1, true);
    world.decides(0);
    assert_eq!(world.look(), None, "the activation holds its pod");
    world.facts.wanted = false;
    assert_eq!(to(world.look()), Some(0));
    world.facts.busy = true;
    let mut world = World::new(1, 8, 0);
    world.facts.busy = true;
    assert_eq!(world.look(), None, "an activation is about to write");
}

#[test]
fn time_in_which_nothing_happened_is_shown_as_that() {
    let mut world = World::new(1, 8, 1);
    world.happens(5);
    world.look();
    world.now += 600 * S;
    world.look();
    let [first, slept, last] = world.shown() else { panic!("three looks: {:?}", world.shown()) };
    let load = |seen: &Observation| seen.load.as_ref().map(|load| (load.over, load.arrived));
    assert_eq!(load(first), Some((S, 5.)));
    assert_eq!(load(slept), Some((600 * S, 0.)));
    assert_eq!(load(last), Some((S, 5.)));
    assert!(first.now < slept.now && slept.now < last.now);
}

#[test]
fn what_is_not_known_is_shown_as_that() {
    let mut world = World::new(0, 8, 1);
    world.look();
    world.facts.counted = None;
    assert!(world.plan.concerns(NAME, &world.seen, None));
    for _ in 0..10 {
        world.look();
    }
    assert!(world.shown()[1..].iter().all(|seen| seen.load.is_none()));
    // Its gateway speaks again, and tells what it counted meanwhile.
    world.facts.counted = Some((Counts { arrived: 110, ..Counts::default() }, 11 * S));
    world.look();
    assert_eq!(world.shown().len(), 12);
    assert_eq!(world.shown()[11].load.as_ref().map(|load| load.over), Some(11 * S));
}

#[test]
fn who_orders_nodes_is_believed() {
    let mut world = World::new(0, 8, 1);
    let waiting = PodSeen {
        uid: "w".into(),
        stands: Stands::Waiting,
        seen: world.now,
        ready: None,
        waited: Some(world.now),
    };
    world.facts.pods.push(waiting);
    let none_comes = |world: &mut World| {
        world.look();
        world.shown().last().expect("a look").pods.no_capacity
    };
    assert!(!none_comes(&mut world));
    world.seen.node_comes = Some(false);
    assert!(none_comes(&mut world), "it says that none can come");
    world.now += 600 * S;
    world.seen.node_comes = Some(true);
    assert!(!none_comes(&mut world), "it says that one comes, however long that takes");
    world.seen.node_comes = None;
    assert!(none_comes(&mut world), "nobody says anything, for minutes");
}

#[test]
fn the_speed_of_pods_that_are_gone_is_remembered() {
    let mut world = World::new(0, 8, 1);
    world.facts.rates = vec![900, 1100];
    world.look();
    world.facts.rates = Vec::new();
    world.look();
    assert_eq!(world.shown()[1].speed.rate, Some(1000.));
}

/// Once, a service that was deleted and made anew within a second was scaled by the speed of another model.
#[test]
fn a_service_that_is_made_anew_begins_anew() {
    let mut world = World::new(0, 8, 1);
    world.facts.rates = vec![900];
    world.look();
    world.facts.rates = Vec::new();
    world.seen.uid = "another".into();
    assert!(!world.plan.concerns(NAME, &Seen { replicas: 0, ..world.seen.clone() }, None));
    world.look();
    assert_eq!((world.shown().len(), world.shown()[0].speed.rate), (1, None));
}

#[test]
fn other_settings_are_passed_on() {
    let mut world = World::new(0, 8, 1);
    world.look();
    world.seen.settings.queue_depth = 4;
    world.look();
    assert_eq!(world.plan.services[NAME].judge.settings.queue_depth, 4);
}

#[test]
fn a_reason_is_told_once_and_not_again_by_the_next_leader() {
    let mut world = World::new(0, 8, 1);
    let explained = |world: &mut World| {
        world.now += S;
        world.plan.look(NAME, &world.seen, &world.facts, world.now).explained.reason
    };
    assert_eq!(explained(&mut world), Some(Reason::Steady));
    assert_eq!(explained(&mut world), None);
    let mut next = World::new(0, 8, 1);
    next.seen.told = Some(Reason::Steady);
    assert_eq!(explained(&mut next), None);
    // The count was changed by the leader before, or by an activation.
    next.plan.services.clear();
    next.seen.told = Some(Reason::MoreWork);
    assert_eq!(explained(&mut next), None);
    next.plan.services.clear();
    next.seen.told = Some(Reason::AtMaximum);
    assert_eq!(explained(&mut next), Some(Reason::Steady));
}

#[test]
fn that_no_count_keeps_the_objective_is_told_once() {
    let mut world = World::new(0, 8, 1);
    let mut slow = Counts { arrived: 20, answered: 20, ..Counts::default() };
    (0..20).for_each(|_| slow.latencies.interactive.observe(2 * S));
    let told = |world: &mut World| {
        world.now += S;
        world.plan.look(NAME, &world.seen, &world.facts, world.now).explained.attainable
    };
    world.facts.counted = Some((Counts::default(), 5 * S));
    assert_eq!(told(&mut world), None, "nothing was measured");
    world.facts.counted = Some((slow, S));
    let shortest = Duration::from_millis(1792);
    assert_eq!(told(&mut world), Some(Attainable::No(shortest)));
    assert_eq!(told(&mut world), None);
    slow.latencies.interactive.observe(S / 10);
    world.facts.counted = Some((slow, S));
    assert_eq!(told(&mut world), Some(Attainable::Yes));
}

#[test]
fn services_are_tuned_in_turn() {
    let mut world = World::new(0, 8, 1);
    let names = ["a".to_owned(), "b".to_owned(), "never-looked-at".to_owned()];
    for name in &names[..2] {
        world.plan.look(name, &world.seen, &world.facts, world.now);
    }
    let mut tune = |now| world.plan.tune(names.iter(), 7, 60 * S, now).map(|(name, _)| name.as_str());
    let t = world.now;
    assert_eq!([tune(t), tune(t + 59 * S)], [None, None]);
    assert_eq!([tune(t + 60 * S), tune(t + 60 * S), tune(t + 60 * S)], [Some("a"), Some("b"), None]);
    assert_eq!(tune(t + 120 * S), Some("a"));
}

#[test]
fn what_is_gone_or_long_asleep_is_forgotten() {
    let mut world = World::new(0, 8, 1);
    world.look();
    world.plan.retain(|_| true, world.now + S);
    assert_eq!(world.plan.services.len(), 1);
    world.plan.retain(|_| true, world.now + REMEMBERED);
    assert!(world.plan.services.is_empty());
    world.look();
    world.plan.retain(|_| false, world.now);
    assert!(world.plan.services.is_empty());
}
