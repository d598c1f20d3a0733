//! What the autoscaler of a service does, seen from outside.

mod common;

use std::time::Duration;

use common::{SETTINGS, World};
use kembed_scaling::{Objective, Reason, Settings, Speed};

#[test]
fn a_service_goes_from_zero_up_and_back_to_zero() {
    let mut world = World::new(SETTINGS, 0, 5.);
    assert_eq!(world.run(60, 0.).replicas, 0);
    let woken = world.pass(1.);
    assert_eq!((woken.replicas, woken.reason), (1, Reason::Activated));
    assert_eq!(world.run(60, 350.).replicas, 4);
    let mut seconds = 0;
    while world.wanted() > 0 {
        world.pass(0.);
        seconds += 1;
        assert!(seconds < 400, "{}", world.wanted());
    }
    assert!(seconds >= 300, "not before the user said: {seconds}");
    assert_eq!(world.pass(0.).reason, Reason::Idle);
}

/// Also where there were bursts, the last a minute ago, which are all that is known of the service.
#[test]
fn who_goes_when_nobody_asks_is_not_kept_for_what_may_come() {
    let settings = Settings { zero_after: Duration::from_secs(10), ..SETTINGS };
    for (lead, bursts) in [(2., 1), (12., 1), (2., 2), (12., 2), (30., 3)] {
        let mut world = World::new(settings, 1, lead);
        world.run(30, 2.);
        world.run(20, 0.);
        for _ in 0..bursts {
            assert!(world.run(25, 350.).replicas >= 3);
            world.run(60, 2.);
        }
        let mut counts = vec![world.pass(0.).replicas];
        counts.extend((0..120).map(|_| world.pass(0.).replicas));
        assert!(counts.is_sorted_by(|before, after| before >= after), "it is raised for nobody: {counts:?}");
        assert_eq!(counts.last(), Some(&0));
    }
}

#[test]
fn ten_times_the_work_gets_its_pods_at_once() {
    let mut world = World::new(SETTINGS, 1, 2.);
    assert_eq!(world.run(120, 40.).replicas, 1);
    world.pass(400.);
    let raised = world.pass(400.);
    assert!(raised.replicas >= 4 && raised.reason == Reason::Burst, "{raised:?}");
    world.run(6, 400.);
    assert_eq!(world.queued, 0., "it is served again after three times what a pod takes to start");
}

/// Beside little work, half a minute in which much came, on which the service was raised: seconds until it came, pods to start,
/// and whatever chance makes of it.
#[test]
fn what_came_once_is_not_expected_again() {
    for start in [2., 12., 20., 30., 60.] {
        for (before, little) in [(60, 2.), (200, 2.), (200, 20.), (600, 20.)] {
            let mut world = World::new(SETTINGS, 1, start);
            let mut counts = (0..before + 930).map(|second| {
                let burst = (before..before + 30).contains(&second);
                let requests = world.chance(if burst { 350. } else { little });
                world.pass(requests).replicas
            });
            let burst = counts.by_ref().take(before + 30).max();
            assert!(burst >= Some(4), "{start} {before} {little}: {burst:?}");
            // Those that it brought go one by one.
            let after: Vec<u32> = counts.skip(75).collect();
            assert!(after.iter().all(|count| *count == 1), "{start} {before} {little}: {after:?}");
        }
    }
}

/// One second with so many small requests, in which requests of these sizes came too. `left` is what is left of each that is
/// there, which a pod of its own works at.
fn with_large(world: &mut World, small: f64, came: &[f64], left: &mut Vec<f64>) -> kembed_scaling::Decision {
    let mut seen = world.look(small, 1.);
    let load = seen.load.as_mut().expect("it is told");
    left.extend(came);
    load.arrived += came.len() as f64;
    load.arrived_tokens += came.iter().sum::<f64>();
    load.arrived_squares += came.iter().map(|size| size * size).sum::<f64>();
    let served = left.len().min(seen.pods.ready as usize);
    let (in_hand, waiting) = left.split_at_mut(served);
    load.requests += (in_hand.len() + waiting.len()) as f64;
    load.in_hand += in_hand.len() as f64;
    load.waiting += waiting.len() as f64;
    load.waiting_tokens += waiting.iter().sum::<f64>();
    load.wanted |= seen.pods.ready == 0 && !waiting.is_empty();
    in_hand.iter_mut().for_each(|tokens| *tokens -= common::RATE);
    left.retain(|tokens| *tokens > 0.);
    let decision = world.scaler.decide(&seen);
    world.ask(decision.replicas);
    decision
}

/// The most pods in the minutes after requests of these sizes came, beside so many small ones each second.
fn most_after(settings: Settings, (ready, start): (u32, f64), small: f64, came: &[f64]) -> u32 {
    let (mut world, mut left) = (World::new(settings, ready, start), Vec::new());
    world.run(120, small);
    let counts = (0..400).map(|second| {
        let came = if second == 0 { came } else { &[] };
        with_large(&mut world, small, came, &mut left).replicas
    });
    counts.max().expect("some")
}

/// Ten seconds or five minutes of a pod, which no second one shortens.
#[test]
fn one_large_request_has_one_pod() {
    for settings in [SETTINGS, Settings { objective: None, ..SETTINGS }] {
        for (ready, start) in [(0, 5.), (0, 90.), (1, 0.5), (1, 5.), (1, 30.), (1, 90.)] {
            for size in [10., 300.].map(|seconds| seconds * common::RATE) {
                assert_eq!(most_after(settings, (ready, start), 0., &[size]), 1, "{ready} {start} {size}");
            }
        }
    }
}

#[test]
fn as_many_large_requests_have_as_many_pods_at_most() {
    for start in [2., 5.] {
        let most = most_after(SETTINGS, (1, start), 0., &[60. * common::RATE; 4]);
        assert!((3..=4).contains(&most), "{start} {most}");
    }
}

/// A fifth of what a pod can do, and one request of five minutes.
#[test]
fn a_large_request_among_small_ones_does_not_ask_for_all_pods() {
    for start in [2., 30.] {
        let most = most_after(SETTINGS, (1, start), 20., &[300. * common::RATE]);
        assert!((1..=5).contains(&most), "{start} {most}");
    }
}

#[test]
fn steady_work_is_left_alone() {
    for requests in [20., 72., 95., 190., 250., 333., 500., 640.] {
        let mut world = World::new(SETTINGS, 1, 20.);
        let mut counts = Vec::new();
        for _ in 0..2 * 3600 {
            let requests = world.chance(requests);
            counts.push(world.pass(requests).replicas);
        }
        let changes = counts[3600..].windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(changes, 0, "{requests} requests a second: {:?}", counts.last());
    }
}

#[test]
fn what_is_not_known_is_not_nothing() {
    let mut world = World::new(SETTINGS, 1, 5.);
    let before = world.run(120, 500.).replicas;
    world.silent = true;
    let unknown = world.run(1000, 0.);
    assert_eq!((unknown.replicas, unknown.reason), (before, Reason::LoadUnknown));
    world.silent = false;
    // What was counted meanwhile comes with the first word.
    world.queued = 0.;
    let seen = world.look(500. * 1000., 1000.);
    world.queued = 0.;
    let told = world.scaler.decide(&kembed_scaling::Observation {
        load: seen.load.map(|load| kembed_scaling::Load { waiting: 0., waiting_tokens: 0., ..load }),
        ..seen
    });
    assert_eq!(told.replicas, before);
    assert_eq!(world.run(100, 500.).replicas, before);
}

#[test]
fn a_leader_that_was_stopped_lowers_nothing_and_raises_nothing() {
    let mut world = World::new(SETTINGS, 1, 5.);
    let before = world.run(120, 350.).replicas;
    let seen = world.look(350. * 60., 60.);
    assert_eq!(world.scaler.decide(&seen).replicas, before);
    assert_eq!(world.run(120, 350.).replicas, before);
    // And one that knows nothing of the time before it led.
    world.scaler = kembed_scaling::Scaler::new(SETTINGS);
    let lowest = (0..120).map(|_| world.pass(350.).replicas).min();
    assert_eq!(lowest, Some(before));
}

#[test]
fn nobody_goes_while_a_backlog_stands() {
    let mut world = World::new(SETTINGS, 10, 5.);
    world.run(60, 900.);
    world.queued = 500_000.;
    while world.queued > 1000. {
        assert_eq!(world.pass(10.).replicas, 10, "{} wait", world.queued);
    }
    assert!(world.run(120, 10.).replicas <= 1);
}

#[test]
fn none_is_added_that_cannot_come() {
    for (blocks, reason) in [
        ((|world, on| world.crash_looping = on) as fn(&mut World, bool), Reason::CrashLooping),
        (|world, on| world.no_capacity = on, Reason::NoCapacity),
    ] {
        let mut world = World::new(SETTINGS, 1, 5.);
        world.run(60, 50.);
        blocks(&mut world, true);
        let blocked = world.run(60, 500.);
        assert_eq!((blocked.replicas, blocked.reason), (1, reason));
        blocks(&mut world, false);
        assert!(world.pass(500.).replicas > 4);
    }
}

#[test]
fn a_pod_that_never_comes_is_replaced_but_not_without_end() {
    let mut world = World::new(SETTINGS, 2, f64::INFINITY);
    world.measured = false;
    let mut most = 0;
    for _ in 0..1300 {
        let mut seen = world.look(197., 1.);
        seen.speed = Speed { rate: Some(common::RATE), ..seen.speed };
        let decision = world.scaler.decide(&seen);
        world.queued = 0.;
        world.ask(decision.replicas);
        most = most.max(decision.replicas);
    }
    assert!((4..=5).contains(&most), "one at a time, each ten minutes: {most}");
}

#[test]
fn the_first_pod_stays_until_it_is_measured() {
    let mut world = World::new(Settings { zero_after: Duration::from_secs(10), ..SETTINGS }, 1, 5.);
    world.measured = false;
    let unmeasured = world.run(300, 0.);
    assert_eq!((unmeasured.replicas, unmeasured.reason), (1, Reason::Measuring));
    world.measured = true;
    assert_eq!(world.run(30, 0.).replicas, 0);
}

#[test]
fn an_objective_that_no_count_keeps_is_told_and_not_paid_for() {
    let objective = Some(Objective { share: 0.95, target: Duration::from_millis(5) });
    let mut world = World::new(Settings { objective, ..SETTINGS }, 1, 5.);
    let decision = world.run(120, 150.);
    assert_eq!(decision.unattainable, Some(Duration::from_millis(10)));
    assert_eq!(decision.replicas, 2);
}

#[test]
fn pods_are_added_while_answers_are_late_though_nothing_waits() {
    let mut world = World::new(SETTINGS, 1, 5.);
    assert_eq!(world.run(60, 250.).replicas, 3);
    world.slow = Some((0.08, 0.2));
    let raised = (0..300).map(|_| world.pass(250.)).find(|decision| decision.replicas > 3);
    assert_eq!(raised.map(|raised| (raised.replicas, raised.reason)), Some((4, Reason::Latency)));
    let most = (0..1200).map(|_| world.pass(250.).replicas).max();
    assert!(
        most.is_some_and(|most| (5..=6).contains(&most)),
        "twice the work is the most that is believed: {most:?}"
    );
    // What was found is forgotten slowly, and nobody goes meanwhile.
    world.slow = Some((0.01, 0.));
    assert_eq!(Some(world.run(600, 250.).replicas), most);
}

#[test]
fn no_pod_is_added_for_what_no_pod_shortens() {
    for slow in [
        // A request that is alone takes as long.
        (0.011, 0.3),
        // As many as the user allows.
        (0.08, 0.04),
    ] {
        let mut world = World::new(SETTINGS, 1, 5.);
        world.run(60, 250.);
        world.slow = Some(slow);
        assert_eq!(world.run(1200, 250.).replicas, 3, "{slow:?}");
    }
    let mut alone = World::new(Settings { objective: None, ..SETTINGS }, 1, 5.);
    alone.run(60, 200.);
    alone.slow = Some((0.08, 1.));
    assert_eq!(alone.run(1200, 200.).replicas, 3, "without a target nothing is late");
}

#[test]
fn what_comes_by_the_clock_finds_its_pods() {
    let mut world = World::new(SETTINGS, 4, 20.);
    let job = |second: usize| if second % 300 < 120 { 350. } else { 1. };
    let ready: Vec<u32> = (0..3000)
        .map(|second| {
            world.pass(job(second));
            world.ready
        })
        .collect();
    assert!(ready[900] >= 4 && ready[1200] >= 4 && ready[2700] >= 4, "they are there when it comes");
    assert!([800, 1100, 2600].iter().all(|&second| ready[second] <= 1), "and not before");
}

#[test]
fn without_an_objective_pods_have_time_left_and_few_requests_wait() {
    let mut world = World::new(Settings { objective: None, ..SETTINGS }, 1, 5.);
    assert_eq!(world.run(120, 300.).replicas, 4);
    let mut piled = World::new(Settings { objective: None, ..SETTINGS }, 1, 5.);
    piled.queued = 200_000.;
    assert!(piled.run(30, 10.).replicas > 2);
}

#[test]
fn new_settings_hold_from_the_next_look_on() {
    let mut world = World::new(SETTINGS, 1, 5.);
    world.run(60, 50.);
    world.scaler.set(Settings { min: 3, ..SETTINGS });
    let raised = world.pass(50.);
    assert_eq!((raised.replicas, raised.reason), (3, Reason::Bounds));
    world.scaler.set(Settings { max: 2, ..SETTINGS });
    assert_eq!(world.pass(50.).replicas, 2);
}

#[test]
fn a_wake_is_waited_for_but_not_for_ever() {
    let mut world = World::new(SETTINGS, 0, f64::INFINITY);
    world.measured = false;
    let pass = |world: &mut World, requests| {
        let mut seen = world.look(requests, 1.);
        seen.speed = Speed { rate: Some(common::RATE), start: Some(Duration::from_secs(20)), ..seen.speed };
        // Whoever asked left at once.
        world.queued = 0.;
        let decision = world.scaler.decide(&seen);
        world.ask(decision.replicas);
        decision.replicas
    };
    assert_eq!(pass(&mut world, 1.), 1);
    for second in 0..890 {
        assert_eq!(pass(&mut world, 0.), 1, "{second}");
    }
    assert_eq!((0..20).map(|_| pass(&mut world, 0.)).last(), Some(0));
}

#[test]
fn what_was_tuned_is_taken_back_when_tuning_is_switched_off() {
    let tunes = Settings { tunes: true, ..SETTINGS };
    let mut world = World::new(tunes, 1, 20.);
    for second in 0..3600 {
        world.pass(if second % 300 < 120 { 400. } else { 5. });
    }
    let tuning = world.scaler.tune(100 * 3600).expect("pods that stand by pay here");
    assert_eq!(*world.scaler.knobs(), tuning.to);
    assert!(tuning.gain > 0.05 && tuning.to != tuning.from, "{tuning}");
    world.scaler.set(SETTINGS);
    assert_eq!(*world.scaler.knobs(), kembed_scaling::Knobs::default());
    assert_eq!(world.scaler.tune(100 * 3600), None);
}
