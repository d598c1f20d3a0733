//! What the world does with requests and pods.

use std::time::Duration;

use kembed_scaling::{
    Observation,
    simulate::{
        Arrival, Contender, Fixed, Gateways, Kind, PodModel, Score, Sight, Trace, Watch, World, fleet::Nodes,
        random::Random,
    },
};
use proptest::prelude::*;

/// Pods that take a millisecond for a token, up to ten of them at once, and start in 5 s.
fn world() -> World {
    World {
        pod: PodModel { batch_seconds: 0., token_seconds: 0.001, batch_tokens: 10 },
        start: 5.,
        nodes: None,
        target: 1.,
        min: 0,
        max: 9,
        first: Some(1),
        gateways: None,
    }
}

fn trace(arrivals: &[(f64, u32)], seconds: f64) -> Trace {
    Trace::new(arrivals.iter().map(|&(at, tokens)| Arrival { at, tokens }).collect(), seconds)
}

/// Decides as told, by the time and what is seen; notes all looks.
struct Told<F> {
    decide: F,
    seen: Vec<(Observation, bool)>,
}

fn told(decide: impl FnMut(f64, &Sight<'_>) -> u32) -> Told<impl FnMut(f64, &Sight<'_>) -> u32> {
    Told { decide, seen: Vec::new() }
}

impl<F: FnMut(f64, &Sight<'_>) -> u32> Contender for Told<F> {
    fn period(&self) -> f64 {
        1.
    }

    fn decide(&mut self, sight: &Sight<'_>) -> u32 {
        self.seen.push((sight.seen.clone(), sight.is_wake));
        (self.decide)(sight.seen.now.as_secs_f64(), sight)
    }
}

/// Notes what happens.
#[derive(Default)]
struct Notes {
    arrived: Vec<f64>,
    answered: Vec<(f64, f64)>,
    counts: Vec<(f64, u32, u32)>,
}

impl Watch for Notes {
    fn arrive(&mut self, arrival: &Arrival) {
        self.arrived.push(arrival.at);
    }

    fn answer(&mut self, at: f64, seconds: f64) {
        self.answered.push((at, seconds));
    }

    fn count(&mut self, at: f64, pods: u32, ready: u32) {
        self.counts.push((at, pods, ready));
    }
}

fn play(world: &World, trace: &Trace, contender: &mut dyn Contender) -> (Score, Notes) {
    let mut notes = Notes::default();
    let score = world.play(trace, contender, &mut notes);
    (score, notes)
}

fn assert_near(got: f64, wanted: f64) {
    assert!((got - wanted).abs() < 1e-6, "{got} for {wanted}");
}

#[test]
fn a_pod_takes_together_what_fits_into_a_batch() {
    // The first is alone, for the others came while it was computed; of these two fit, and the last is longer than a batch.
    let trace = trace(&[(0.5, 10), (0.502, 4), (0.503, 6), (0.504, 20)], 1.);
    let (score, notes) = play(&world(), &trace, &mut Fixed(1));
    let ends: Vec<i64> = notes.answered.iter().map(|(at, _)| (at * 1e3).round() as i64).collect();
    assert_eq!(ends, [510, 520, 520, 540]);
    assert_eq!((score.requests, score.missed, score.cold, score.scale_events), (4, 0, 0, 0));
    assert_near(score.replica_seconds, 1.);
}

#[test]
fn who_comes_at_zero_wakes_at_once_and_is_held() {
    let trace = trace(&[(2.5, 10), (2.6, 10)], 10.);
    let mut contender = told(|now, sight| match (now < 2., sight.is_wake, sight.seen.pods.wanted) {
        (true, _, _) => 0,
        (_, true, _) => 1,
        (_, _, wanted) => wanted,
    });
    let (score, notes) = play(&World { first: Some(0), ..world() }, &trace, &mut contender);
    let wakes: Vec<&Observation> =
        contender.seen.iter().filter(|(_, is_wake)| *is_wake).map(|(seen, _)| seen).collect();
    let [wake] = wakes[..] else { panic!("woken {} times", wakes.len()) };
    let load = wake.load.as_ref().expect("it is known");
    assert_eq!(wake.now, Duration::from_millis(2500));
    assert!(load.wanted && load.arrived == 1. && load.waiting_tokens == 10.);
    assert_eq!(load.over, Duration::from_millis(500), "since the look before");
    assert_near(notes.answered[0].0, 7.51);
    assert_near(notes.answered[1].1, 4.92);
    assert_eq!((score.cold, score.missed), (2, 2));
}

#[test]
fn what_gateways_tell_comes_later_and_who_waits_at_zero_is_told_of_at_once() {
    let arrivals: Vec<(f64, u32)> = (0..300).map(|index| (10. + f64::from(index) * 0.01, 1)).collect();
    let (mut first_seen, mut phases) = (Vec::new(), Vec::new());
    for seed in 0..50 {
        let gateways = Some(Gateways { count: 2, seed });
        let world = World { gateways, first: Some(1), ..world() };
        let mut contender = told(|_, _| 1);
        play(&world, &trace(&arrivals, 20.), &mut contender);
        let come = |seen: &Observation| seen.load.as_ref().map_or(0., |load| load.arrived);
        let first = contender.seen.iter().find(|(seen, _)| come(seen) > 0.).expect("they are seen");
        first_seen.push(first.0.now.as_secs_f64() - 10.);
        phases.push(contender.seen[1].0.now.as_secs_f64());
        assert!(
            (contender.seen.iter().map(|(seen, _)| come(seen)).sum::<f64>() - 300.).abs() < 1e-6,
            "all are"
        );

        let mut sleeper = told(|_, sight| u32::from(sight.is_wake || sight.seen.pods.wanted > 0));
        let (_, notes) =
            play(&World { first: Some(0), ..world.clone() }, &trace(&[(7.25, 10)], 20.), &mut sleeper);
        assert_eq!(notes.counts[1], (7.25, 1, 0));
    }
    assert!(
        phases.iter().all(|phase| (0. ..1.).contains(phase))
            && phases.windows(2).all(|pair| pair[0] != pair[1])
    );
    // From when the first came to the first word of both, and from there to the next look.
    assert!(first_seen.iter().all(|seconds| (0. ..=2.).contains(seconds)), "{first_seen:?}");
    assert!(
        first_seen.iter().any(|seconds| *seconds > 1.) && first_seen.iter().any(|seconds| *seconds < 0.7)
    );
}

#[test]
fn who_is_never_answered_is_missed() {
    let (score, _) = play(&world(), &trace(&[(1.5, 1)], 2.), &mut Fixed(0));
    assert_eq!((score.requests, score.missed), (1, 1));
    assert!(score.quantile(0.5).is_infinite());
}

#[test]
fn a_pod_that_leaves_answers_what_it_has_first() {
    let (score, notes) = play(
        &world(),
        &trace(&[(0.5, 3000), (0.6, 10)], 10.),
        &mut told(|now, _| {
            if now < 1. {
                1
            } else if now < 2. {
                0
            } else {
                1
            }
        }),
    );
    // The first is answered by the pod that leaves at 1 s, the second by the one that is asked for at 2 s.
    let ends: Vec<i64> = notes.answered.iter().map(|(at, _)| (at * 1e3).round() as i64).collect();
    assert_eq!(ends, [3500, 7010]);
    assert_near(score.replica_seconds, 3.5 + 8.);
}

#[test]
fn of_pods_those_go_first_that_do_not_answer_yet() {
    let mut contender = told(|now, _| match now as u32 {
        0 => 1,
        1..3 => 4,
        _ => 2,
    });
    let (_, notes) = play(&world(), &trace(&[], 10.), &mut contender);
    assert_eq!(notes.counts, [(0., 1, 1), (1., 4, 1), (3., 2, 1), (6., 2, 2)]);
    let starting: Vec<Vec<u64>> = contender.seen[2..5]
        .iter()
        .map(|(seen, _)| seen.pods.starting.iter().map(Duration::as_secs).collect())
        .collect();
    assert_eq!(starting, [vec![1, 1, 1], vec![2, 2, 2], vec![3]], "the oldest first");
}

#[test]
fn nodes_are_bought_shared_and_given_back() {
    let nodes = Nodes { lead: 60., pods: 2, idle: 30. };
    let world = World { nodes: Some(nodes), ..world() };
    // One more is on the first node; of two more each waits for the same new node, which is given back when it was empty for 30 s.
    let mut contender = told(|now, _| match now as u32 {
        0..10 => 1,
        10..20 => 2,
        20..100 => 4,
        100..120 => 2,
        120..140 => 3,
        140..200 => 2,
        _ => 3,
    });
    let (_, notes) = play(&world, &trace(&[], 300.), &mut contender);
    let ready = |at: f64| notes.counts.iter().rfind(|(time, _, _)| *time <= at).expect("the first count").2;
    let ready: Vec<u32> = [14.9, 15., 84.9, 85., 124.9, 125., 204.9, 264.9, 265.].map(ready).to_vec();
    assert_eq!(ready, [1, 2, 2, 4, 2, 3, 2, 2, 3]);
    let start = contender.seen.last().expect("a look").0.speed.start;
    assert_eq!(start, Some(Duration::from_secs(65)), "as measured, with the node");
}

#[test]
fn what_is_seen_is_what_was_and_the_rate_is_measured() {
    let trace = trace(&[(0.2, 100), (0.25, 100)], 3.);
    let mut contender = told(|_, _| 1);
    play(&World { pod: PodModel { batch_seconds: 0.1, ..world().pod }, ..world() }, &trace, &mut contender);
    let seen = &contender.seen[1].0;
    let load = seen.load.as_ref().expect("it is known");
    // In hand from 0.2 to 0.4 and from 0.4 to 0.6 s; the second waits from 0.25 to 0.4 s.
    assert_near(load.in_hand, 0.4);
    assert_near(load.waiting, 0.15);
    assert_eq!((load.arrived, load.arrived_tokens, load.arrived_squares), (2., 200., 20_000.));
    assert_eq!((load.answered_tokens, load.waiting_tokens, load.in_hand_tokens), (200., 0., 0.));
    assert_eq!((load.latencies.total(), load.over), (2, Duration::from_secs(1)));
    // A full batch of 10 tokens takes 110 ms, one of a token 101 ms.
    let speed = seen.speed;
    assert_near(speed.rate.expect("it was measured"), 10. / 0.11);
    assert_eq!(speed.floor, Some(Duration::from_millis(101)));
    assert_eq!(speed.start, Some(Duration::from_secs(5)));
}

#[test]
fn the_rate_is_found_though_no_batch_is_full() {
    let world = World { pod: PodModel::default(), first: Some(3), ..world() };
    let mut contender = told(|_, _| 3);
    play(&world, &Kind::Ramp.generate(1), &mut contender);
    for (seen, _) in contender.seen {
        let rate = seen.speed.rate.expect("it was measured");
        assert!((rate / world.pod.rate() - 1.).abs() < 0.01, "{rate} at {:?}", seen.now);
    }
}

#[test]
fn the_first_minute_says_how_many_there_are_at_the_beginning() {
    let world = World { pod: PodModel::default(), first: None, ..world() };
    let first = |kind: Kind| {
        play(&world, &kind.generate(1), &mut told(|_, sight| sight.seen.pods.wanted)).1.counts[0]
    };
    // 200 requests of 600 tokens a second are 2.5 pods that are always busy, and 3.1 that are busy for 80 %.
    assert_eq!(first(Kind::Steady), (0., 4, 4));
    assert_eq!(first(Kind::Sparse), (0., 1, 1));
}

proptest! {
    #[test]
    fn whatever_is_decided_each_request_is_answered_once_in_the_order_of_batches(
        seed in 0_u64..1000, gap in 0.01_f64..3., lead in proptest::option::of(0.0_f64..20.)
    ) {
        let mut random = Random::new(seed);
        let mut at = 0.;
        let arrivals: Vec<(f64, u32)> = (0..300)
            .map(|_| {
                at += random.exponential(gap);
                (at, 1 + (random.unit() * 30.) as u32)
            })
            .collect();
        let trace = trace(&arrivals, 0.);
        let nodes = lead.map(|lead| Nodes { lead, pods: 2, idle: 7. });
        let mut contender = told(|now, _| if now > at { 1 } else { (random.unit() * 12.) as u32 });
        let world = World { nodes, ..world() };
        let (score, notes) = play(&world, &trace, &mut contender);
        prop_assert_eq!(notes.arrived.len(), 300);
        prop_assert_eq!((notes.answered.len() as u64, score.requests), (300, 300));
        prop_assert!(notes.answered.iter().all(|(_, seconds)| *seconds > 0.));
        // What is paid for is what was there.
        let last = notes.answered.iter().map(|(at, _)| *at).fold(trace.seconds(), f64::max);
        let ends = notes.counts.iter().skip(1).map(|(at, _, _)| *at).chain([last]);
        let paid: f64 = notes.counts.iter().zip(ends).map(|((at, pods, _), end)| (end - at) * f64::from(*pods)).sum();
        prop_assert!((paid / score.replica_seconds - 1.).abs() < 1e-9, "{} {}", paid, score.replica_seconds);
        let missed = notes.answered.iter().filter(|(_, seconds)| *seconds > world.target).count() as u64;
        prop_assert_eq!(missed, score.missed);
        // All that came in was answered or is still there, at any look.
        let sum = |of: fn(&kembed_scaling::Load) -> f64| -> f64 {
            contender.seen.iter().filter_map(|(seen, _)| seen.load.as_ref()).map(of).sum()
        };
        let end = contender.seen.last().and_then(|(seen, _)| seen.load.as_ref()).expect("a look");
        let there = end.waiting_tokens + end.in_hand_tokens;
        prop_assert_eq!(sum(|load| load.arrived_tokens), sum(|load| load.answered_tokens) + there);
    }

    #[test]
    fn the_same_call_gives_the_same_answer(seed in 0_u64..5) {
        let trace = Kind::Sparse.generate(seed);
        let once = || play(&world(), &trace, &mut told(|now, _| (now as u32 / 60) % 4)).0;
        prop_assert_eq!(once(), once());
    }
}
