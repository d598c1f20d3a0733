//! Nobody does better than who knows the future.

use std::time::Duration;

use kembed_scaling::{
    Objective, Scaler, Settings,
    simulate::{Fixed, Kind, Ours, Score, Trace, World, clairvoyant, peers::Peer},
};

fn settings(target: f64) -> Settings {
    let objective = Some(Objective { share: 0.95, target: Duration::from_secs_f64(target) });
    let zero_after = Duration::from_secs(300);
    Settings { min: 0, max: 20, queue_depth: 16, objective, zero_after, tunes: true }
}

/// Each kind of traffic, with start-up times in turn.
fn worlds() -> impl Iterator<Item = (String, Trace, Settings, World)> {
    let starts = [(2., 0.2), (20., 1.), (90., 2.)];
    Kind::ALL.into_iter().zip(starts.into_iter().cycle()).map(|(kind, (start, target))| {
        let settings = settings(target);
        let world = World::of(&settings, Duration::from_secs_f64(start));
        (format!("{}, {start} s", kind.name()), kind.generate(5), settings, world)
    })
}

/// Whether it is better in both, by more than the last batch can make of it.
fn beats(score: &Score, best: &Score) -> bool {
    score.replica_seconds < 0.999 * best.replica_seconds && score.missed < best.missed.max(1)
}

#[test]
fn nobody_beats_it_in_both_replica_seconds_and_misses() {
    for (name, trace, settings, world) in worlds() {
        let best = clairvoyant::play(&world, &trace);
        assert!(best.miss_share() <= 0.001, "{name}: {} of {} missed", best.missed, best.requests);
        let ours = world.play(&trace, &mut Ours(Scaler::new(settings)), &mut ());
        assert!(!beats(&ours, &best), "{name}: {} and {}", ours.replica_seconds, best.replica_seconds);
        for peer in Peer::defaults() {
            let score = world.play(&trace, &mut *peer.contender(), &mut ());
            assert!(
                !beats(&score, &best),
                "{name}: {peer} {} and {}",
                score.replica_seconds,
                best.replica_seconds
            );
        }
        for count in [1, 2, 3, 4, 5] {
            let score = world.play(&trace, &mut Fixed(count), &mut ());
            assert!(!beats(&score, &best), "{name}: {count} pods and {}", best.replica_seconds);
        }
    }
}

#[test]
fn between_visits_that_are_far_apart_it_has_no_pod() {
    let trace = Trace::parse("0,100\n1000,100\n2000,100\n").expect("a trace");
    let world = World::of(&settings(1.), Duration::from_secs(20));
    let score = clairvoyant::play(&world, &trace);
    assert_eq!(score.missed, 0);
    // The first pod is there, two are started for 20 s each, and each stays for less than two slots of half a second.
    assert!((40. ..44.).contains(&score.replica_seconds), "{}", score.replica_seconds);
}

#[test]
fn a_pod_stays_where_to_start_another_would_cost_more() {
    let trace = Trace::parse("0,100\n19,100\n40,100\n").expect("a trace");
    let world = World::of(&settings(1.), Duration::from_secs(20));
    let score = clairvoyant::play(&world, &trace);
    // From 0 s to half a second after 19 s it stays; the next is asked for 20 s before 40 s, and the trace ends with it.
    assert!((39.4..39.6).contains(&score.replica_seconds), "{}", score.replica_seconds);
}
