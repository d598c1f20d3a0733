//! Clients that wait at zero: 10,000 with short texts, and fewer with long ones.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use hyper::StatusCode;
use kembed_runtime::files;
use serde_json::json;

use crate::{
    Bench, NAME,
    busy_pod::{BusyPod, NUMBER_HEADER},
    client::{Client, block_on},
    fleet::{Fleet, until},
    loads::{Aim, body},
    report::Row,
    world::World,
};

/// Clients, each with a connection of its own, and how many bytes each of their bodies has.
#[derive(Clone, Copy)]
struct Crowd {
    clients: usize,
    bytes: usize,
    goal: f64,
}

const MANY: Crowd = Crowd { clients: 10_000, bytes: 200, goal: 300. };

/// As many bytes as may wait for one service.
const LONG: Crowd = Crowd { clients: 600, bytes: 100_000, goal: 150. };

/// How long none may be held up by others who came later: two threads read from sockets, and neither waits for the other.
const TOGETHER: Duration = Duration::from_millis(20);

/// How fast the pod is, so that its work does not take longer than ours.
const SPEED: f64 = 40.;

/// Holds them, lets a pod come, and looks who was answered in which order and what memory it took.
pub fn held(bench: &Bench) -> Vec<Row> {
    [(1, MANY), (3, MANY), (3, LONG)].map(|(count, crowd)| row(bench, count, crowd)).into()
}

fn row(bench: &Bench, count: usize, crowd: Crowd) -> Row {
    let Crowd { clients, bytes, goal } = crowd;
    let world = World::start();
    world.put_service(NAME, 0);
    let fleet = Fleet::start(&bench.program, &world, count, &[]);
    fleet.await_known("services", 1);
    let entries: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.address).collect();
    let fresh = fleet.gateways.iter().map(|gateway| gateway.memory().0).fold(0., f64::max);
    // As a gateway counts (`server.rs`): further clients are accepted when others have gone.
    let held = clients.min((files::raise_limit() - 64) / 2 * count);
    let pod = BusyPod::start(SPEED);
    let (sent, took) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| block_on(ask(&entries, crowd)));
        let waiting = || fleet.gateways[0].metric("kembed_gateway_waiting_requests") as usize;
        until("all clients wait", || waiting() >= held);
        let came = Instant::now();
        world.put_pod(NAME, "pod-0", pod.address);
        (asking.join().expect("all are answered"), came.elapsed())
    });
    let most: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.memory().1).collect();
    let late = overtaken(&sent, &pod.came());
    let [owner, others] = [&most[..1], &most[1..]].map(|part| part.iter().copied().fold(0., f64::max));
    let memory = most.iter().copied().fold(0., f64::max);
    Row {
        what: format!("clients held at zero with {bytes} bytes each"),
        with: count.to_string(),
        figure: format!(
            "{held} at a time, all {clients} answered {:.1} s after the pod came, at most {:.0} ms out of order, \
             {owner:.0} MB at the owner and {others:.0} MB at others at most ({fresh:.0} before)",
            took.as_secs_f64(),
            late.as_secs_f64() * 1e3
        ),
        goal: "all in order, 300 MB, with long ones 150",
        is_met: Some(held + 64 >= clients && late <= TOGETHER && memory < goal),
        rounds: json!({"held": held, "seconds": took.as_secs_f64(), "outOfOrderMs": late.as_secs_f64() * 1e3, "mostMB": most}),
    }
}

/// Has all clients ask, one after the other, and waits for all answers. Gives back when each request was sent.
async fn ask(entries: &[SocketAddr], Crowd { clients, bytes, .. }: Crowd) -> Vec<Instant> {
    let (mut sent, mut answers) = (Vec::new(), Vec::new());
    for (number, entry) in (0..clients).zip(entries.iter().cycle()) {
        let mut client = Client::open(*entry).await.expect("it listens");
        let aim = Aim { address: *entry, service: NAME.to_owned() };
        let request = aim.request(&[(NUMBER_HEADER, &number.to_string())], body(bytes));
        sent.push(Instant::now());
        answers.push(tokio::task::spawn_local(async move { client.send(request).await }));
        // What was spawned begins.
        tokio::task::yield_now().await;
    }
    for answer in join_all(answers).await {
        let answer = answer.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
    }
    sent
}

/// By how much the one came too early that overtook the others most.
fn overtaken(sent: &[Instant], came: &[usize]) -> Duration {
    assert_eq!(came.len(), sent.len(), "each comes once");
    let mut last = sent[0];
    let late = came.iter().map(|number| {
        last = last.max(sent[*number]);
        last - sent[*number]
    });
    late.max().unwrap_or_default()
}
