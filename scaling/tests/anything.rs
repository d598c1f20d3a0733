//! Whatever is seen, in whatever order.

mod common;

use std::time::Duration;

use common::{SETTINGS, World};
use kembed_scaling::{Load, Observation, Pods, Reason, Scaler, Settings, Speed};
use proptest::{collection::vec, prelude::*};

/// Numbers of all kinds.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => 0.0..1e5,
        1 => Just(0.),
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::MAX),
    ]
}

fn seconds() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => (0u64..4000).prop_map(Duration::from_millis),
        1 => (0u64..10_000).prop_map(Duration::from_secs),
        1 => Just(Duration::MAX),
    ]
}

fn load() -> impl Strategy<Value = Load> {
    (vec(number(), 9), seconds(), vec(0u64..2000, 0..9), any::<bool>()).prop_map(
        |(numbers, over, took, wanted)| {
            let mut load = Load {
                over,
                arrived: numbers[0],
                arrived_tokens: numbers[1],
                arrived_squares: numbers[2],
                answered_tokens: numbers[3],
                waiting: numbers[4],
                in_hand: numbers[5],
                waiting_tokens: numbers[6],
                in_hand_tokens: numbers[7],
                requests: numbers[8],
                wanted,
                ..Load::default()
            };
            took.iter().for_each(|&ms| load.latencies.observe(Duration::from_millis(ms)));
            load
        },
    )
}

fn pods() -> impl Strategy<Value = Pods> {
    let count = || prop_oneof![9 => 0u32..20, 1 => any::<u32>()];
    (count(), count(), vec(seconds(), 0..5), any::<bool>(), any::<bool>()).prop_map(
        |(wanted, ready, starting, crash_looping, no_capacity)| Pods {
            wanted,
            ready,
            starting,
            crash_looping,
            no_capacity,
        },
    )
}

fn speed() -> impl Strategy<Value = Speed> {
    (proptest::option::of(number()), proptest::option::of(seconds()), proptest::option::of(seconds()))
        .prop_map(|(rate, start, floor)| Speed { rate, start, floor })
}

fn looks() -> impl Strategy<Value = Vec<(Duration, Option<Load>, Pods, Speed)>> {
    vec((seconds(), proptest::option::weighted(0.8, load()), pods(), speed()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_stays_within_bounds_and_lowers_nothing_it_does_not_know_of(
        looks in looks(), min in 0u32..5, more in 0u32..30, tunes in any::<bool>()
    ) {
        let settings = Settings { min, max: (min + more).max(1), tunes, ..SETTINGS };
        let mut scaler = Scaler::new(settings);
        let mut now = Duration::ZERO;
        for (passed, load, pods, speed) in looks {
            now = now.saturating_add(passed);
            let wanted = pods.wanted;
            let unknown = load.is_none();
            let decision = scaler.decide(&Observation { now, load, pods, speed });
            prop_assert!((settings.min..=settings.max).contains(&decision.replicas));
            prop_assert!(decision.terms.most().is_finite());
            if unknown && wanted <= settings.max {
                prop_assert!(decision.replicas >= wanted);
            }
        }
        scaler.tune(2 * 3600);
    }

    #[test]
    fn nobody_goes_while_a_backlog_stands(
        work in vec(prop_oneof![0.0..50., 0.0..2000.], 1..300), start in 1.0..60., ready in 1u32..10
    ) {
        let mut world = World::new(SETTINGS, ready, start);
        for requests in work {
            let before = world.wanted();
            let decision = world.pass(requests);
            // A quarter of a second of work of all pods is more than any quarter of what may be waited here.
            let stands = world.queued > f64::from(world.ready) * common::RATE / 4.;
            prop_assert!(!stands || decision.replicas >= before);
        }
    }

    #[test]
    fn who_is_left_alone_falls_asleep_in_bounded_time(
        work in vec(0.0..2000., 0..200), start in 1.0..60., zero_after in 1u64..600
    ) {
        let zero_after = Duration::from_secs(zero_after);
        let mut world = World::new(Settings { zero_after, ..SETTINGS }, 1, start);
        for requests in work {
            world.pass(requests);
        }
        let mut seconds = 0;
        while world.wanted() > 0 {
            let before = world.queued;
            world.pass(0.);
            seconds += u64::from(before == 0.);
            prop_assert!(seconds <= zero_after.as_secs() + 10 * start as u64 + 120);
        }
        prop_assert!(seconds >= zero_after.as_secs().min(1), "never before the user said");
    }

    #[test]
    fn more_work_never_gets_fewer(requests in 1.0..900., more in 1.0..2., start in 1.0..60.) {
        let settled = |requests| World::new(SETTINGS, 1, start).run(300, requests).replicas;
        prop_assert!(settled(requests) <= settled(requests * more));
    }
}

#[test]
fn reasons_are_told_by_name_and_each_has_its_sentence() {
    let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
    assert!(Reason::ALL.iter().all(|reason| reason.meaning().ends_with('.')));
}
