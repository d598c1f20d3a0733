//! The loop on a paused clock, before an API server and gateways that are made up.

#[path = "../../../scaling/tests/on_cpu/mod.rs"]
mod on_cpu;
mod world;

use std::collections::BTreeSet;

use http::StatusCode;
use kembed_queue::report::{Report, ServiceReport};
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio::time::advance;

use self::{
    on_cpu::on_cpu,
    world::{RATE, World, pod, settle},
};
use super::*;

const OK: StatusCode = StatusCode::OK;

#[tokio::test(start_paused = true)]
async fn a_count_out_of_its_bounds_is_written_once() {
    let mut world = World::new(9, json!({"maxReplicas": 4})).await;
    for _ in 0..5 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), [(4, OK)], "what was written was not seen yet, and is not written again");
    world.see();
    for _ in 0..5 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), [(4, OK)]);
    let counted = "kembed_autoscaler_writes_total{reason=\"Bounds\",outcome=\"Written\"} 1\n";
    assert!(world.metrics().contains(counted), "{}", world.metrics());
}

#[tokio::test(start_paused = true)]
async fn without_scaling_nothing_is_ever_written() {
    let mut world = World::new(9, Value::Null).await;
    for _ in 0..100 {
        world.second(true).await;
    }
    world.api.change(|stored| stored.replicas = 0);
    world.see();
    for _ in 0..100 {
        world.second(true).await;
    }
    assert_eq!(world.writes(), []);
}

#[tokio::test(start_paused = true)]
async fn who_changed_it_meanwhile_is_seen_first() {
    let mut world = World::new(9, json!({"maxReplicas": 4})).await;
    world.api.change(|stored| stored.replicas = 3);
    world.second(false).await;
    world.second(false).await;
    let writes = world.writes();
    assert!(!writes.is_empty() && writes.iter().all(|write| write.1 == StatusCode::CONFLICT), "{writes:?}");
    world.see();
    for _ in 0..5 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), writes, "3 is within the bounds");
}

#[tokio::test(start_paused = true)]
async fn an_activation_does_not_wait_for_the_next_look() {
    let mut world = World::new(0, json!({})).await;
    world.second(false).await;
    world.second(false).await;
    let service = ServiceReport { wanted: Some(1), ..ServiceReport::default() };
    let services = [("t/s".to_owned(), service)].into();
    let report = Report { epoch: "e".into(), at: 2_500_000, services };
    world.tell(News::Report { gateway: "g".into(), report }).await;
    settle().await;
    assert_eq!(world.writes(), [(1, OK)], "no time has passed");
}

/// The service was woken, and its minimum is 3: the first pod comes alone.
#[tokio::test(start_paused = true)]
async fn from_zero_one_pod_comes_first_whatever_the_minimum() {
    let mut world = World::new(0, json!({"minReplicas": 3})).await;
    for _ in 0..5 {
        world.second(false).await;
        world.see();
    }
    assert_eq!(world.writes(), [(1, OK)]);
}

/// What an API server that hangs is asked is given up, and asked again.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_asked_again() {
    let mut world = World::new(9, json!({"maxReplicas": 4})).await;
    world.api.stored().hangs = true;
    for _ in 0..3 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), []);
    world.api.stored().hangs = false;
    for _ in 0..10 {
        world.second(false).await;
    }
    assert_eq!(world.writes(), [(4, OK)]);
    assert!(world.metrics().contains("outcome=\"Failed\"} 1\n"), "{}", world.metrics());
}

/// The counts that were written, one after the other.
fn counts(world: &World) -> Vec<u64> {
    world.writes().into_iter().filter(|write| write.1 == OK).map(|write| write.0).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_come_with_the_load_and_go_with_it() {
    let mut world = World::new(1, json!({"scaleToZeroAfter": "2m"})).await;
    for _ in 0..60 {
        world.served(10).await;
    }
    assert_eq!(counts(&world), [0; 0], "half of what one pod can");
    for _ in 0..120 {
        world.served(70).await;
    }
    let (most, up) = (world.replicas(), counts(&world));
    assert!((4..=6).contains(&most) && world.waiting == 0, "{most} pods, {} wait: {up:?}", world.waiting);
    assert!(up.len() < 8, "it does not swing: {up:?}");
    let mut seconds = 0;
    while world.replicas() > 0 && seconds < 1200 {
        world.served(0).await;
        seconds += 1;
    }
    let counts = counts(&world);
    assert!((120..600).contains(&seconds), "{seconds} s until the last pod went: {counts:?}");
    assert!(counts[up.len()..].iter().rev().is_sorted(), "it only falls: {counts:?}");
    for _ in 0..3 {
        world.served(5).await;
    }
    assert_eq!(self::counts(&world)[counts.len()], 1, "who asks at zero brings one first");
}

/// The gateway has the requests, and says nothing: it is not that there are none.
#[tokio::test(start_paused = true)]
async fn while_a_gateway_is_silent_nothing_is_taken_away() {
    let mut world = World::new(3, json!({"scaleToZeroAfter": "1m"})).await;
    for _ in 0..30 {
        world.served(50).await;
    }
    let before = counts(&world);
    for _ in 0..600 {
        world.pass(Duration::from_secs(1)).await;
    }
    assert_eq!(counts(&world), before);
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_takes_nothing_away_before_it_knows() {
    let mut world = World::new(5, json!({})).await;
    for _ in 0..60 {
        world.served(90).await;
    }
    let before = counts(&world);
    world.lead().await;
    for _ in 0..60 {
        world.served(90).await;
    }
    assert_eq!(counts(&world), before);
}

/// A leader that was stopped for a minute finds old reports in its sockets when it goes on, and its own count long overtaken.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_stopped_writes_nothing_that_it_decided_before() {
    let mut world = World::new(1, json!({})).await;
    let writer = world.writer();
    let change = Change { service: "t/s".into(), version: "7".into(), from: 1, to: 5, reason: Reason::Burst };
    let decided = now();
    advance(Duration::from_secs(60)).await;
    let (_, written) = writer.write(change, decided).await;
    assert_eq!((written, world.writes()), (Written::No, Vec::new()));
}

/// One pod serves and those that follow fail, while the wall clock stands, is set back or is set forth by an hour.
#[tokio::test(start_paused = true)]
async fn none_is_added_while_the_last_one_fails_whatever_the_wall_clock_says() {
    let clocks: [fn(usize) -> i64; 3] = [
        |number| 7200 + number as i64,
        |number| if number == 0 { 7200 } else { 3600 + number as i64 },
        |number| if number == 0 { 3600 } else { 7200 - number as i64 },
    ];
    for wall in clocks {
        let mut world = World::new(1, json!({"maxReplicas": 50})).await;
        (world.fails, world.wall) = (1, wall);
        for _ in 0..30 {
            world.served(10).await;
        }
        for _ in 0..300 {
            world.served(70).await;
        }
        let counts = counts(&world);
        // Those of the first seconds were asked for before the first of them failed.
        assert!(counts.len() <= 3 && counts.is_sorted(), "{counts:?}");
        assert!(counts.iter().all(|count| *count < 20), "{counts:?}");
    }
}

/// Work for which five pods would not be enough, and none gets ready.
#[tokio::test(start_paused = true)]
async fn pods_that_never_get_ready_do_not_become_many() {
    let mut world = World::new(0, json!({"maxReplicas": 50})).await;
    for _ in 0..500 {
        world.ages.iter_mut().for_each(|age| *age = 0);
        world.served(5).await;
    }
    assert_eq!(counts(&world), [1]);
}

/// Its pods took three seconds, and so many may be asked for at once; now the first does not come, and many ask.
#[tokio::test(start_paused = true)]
async fn pods_that_do_not_get_ready_any_more_do_not_become_many() {
    let mut world = World::new(0, json!({"maxReplicas": 50, "scaleToZeroAfter": "20s"})).await;
    for arrived in [0; 10].into_iter().chain([10; 60]) {
        world.served(arrived).await;
    }
    for _ in 0..1200 {
        world.served(0).await;
    }
    assert_eq!(world.replicas(), 0);
    let never = async |world: &mut World, arrives: &[u64]| {
        for &arrived in arrives {
            world.ages.iter_mut().for_each(|age| *age = 0);
            world.served(arrived).await;
        }
        counts(world)
    };
    let before = never(&mut world, &[[1].as_slice(), &[0; 30]].concat()).await;
    assert!((1..=2).contains(&world.replicas()), "{before:?}");
    assert_eq!(never(&mut world, &[70; 300]).await, before);
}

/// Of five thousand services half sleep, half stand at their minimum, and fifty have something to do.
#[tokio::test]
async fn services_to_which_nothing_happens_cost_next_to_nothing() {
    let mut world = World::new(0, json!({})).await;
    let report = |service: usize, second: u64| {
        let mut report = ServiceReport::default();
        report.counts.arrived = 10 * second;
        report.counts.arrived_tokens = 500 * second;
        report.rates.insert("p".into(), RATE);
        (format!("t/s{service}"), report)
    };
    for number in 0..5000 {
        let mut object = world.api.object();
        object.metadata.name = Some(format!("s{number}"));
        let least = i32::from(number % 2 == 0);
        object.spec.replicas = least;
        object.spec.scaling.as_mut().expect("it scales").min_replicas = least;
        world.seen.apply_watcher_event(&watcher::Event::Apply(object));
        let mut pod = pod(number, true);
        pod.metadata.labels = Some([("kembed.dev/service".into(), format!("s{number}"))].into());
        world.pods.apply_watcher_event(&watcher::Event::Apply(pod));
    }
    let began = now();
    let mut fleet = Fleet::new(began);
    fleet.follow(&BTreeSet::from(["g".to_owned()]));
    let autoscaler =
        Autoscaler { writer: world.writer(), pods: world.pods.as_reader(), sightings: Sightings::default() };
    let mut looks = Looks::<Scaler>::new(autoscaler, began);
    let mut took = Duration::ZERO;
    for second in 1..=20 {
        let at = began + Duration::from_secs(second);
        let services = (0..50).map(|service| report(service, second)).collect();
        let report = Report { epoch: "e".into(), at: second * 1_000_000, services };
        fleet.receive("g", report, at);
        let start = on_cpu();
        looks.all(&mut fleet, &Activations::default(), at);
        took += on_cpu() - start;
    }
    let took = took / 20;
    eprintln!("a look at 5,000 services, 50 of them busy: {took:?}");
    assert!(world.metrics().contains("kembed_autoscaler_services 50\n"), "{}", world.metrics());
    // Without optimisation.
    assert!(took < Duration::from_millis(500), "{took:?}");
}
