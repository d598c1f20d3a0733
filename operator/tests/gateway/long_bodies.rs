//! Long bodies that are forwarded: until a pod may have one, it stays at the gateway that its client is connected to.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use operator::gateway::{availability::Service, objects::GatewayPod};
use tokio::task::JoinSet;

use crate::{fleet::*, stub::*, support::*};

/// Bytes of a long body.
const LONG: usize = 200_000;

/// Clients.
const MANY: usize = 8;

/// JSON, and each another.
fn long(i: usize) -> String {
    format!("\"{i}{}\"", "x".repeat(LONG))
}

fn embed_long(i: usize) -> Request<Full<Bytes>> {
    post("minilm.team", "/embed", long(i))
}

/// The owner has room for one long body and the beginnings of the others, and who forwards them for all.
fn bounds(rank: usize, setup: &mut Setup) {
    setup.limits.body = 2 * LONG;
    setup.limits.bodies = if rank == 0 { LONG + MANY * 17_000 } else { 2 * MANY * LONG };
    setup.limits.wait.bytes = 2 * MANY * LONG;
}

/// Has each client send another one to a gateway.
fn send(to: &Arc<Bench>) -> JoinSet<Answer> {
    let mut asking = JoinSet::new();
    for i in 0..MANY {
        let bench = to.clone();
        asking.spawn(async move { bench.ask(embed_long(i)).await });
    }
    asking
}

/// Each has its own back, whole.
fn all_came_back(answers: &[Answer]) {
    all_answered(answers);
    let mut bodies: Vec<_> = answers.iter().map(|answer| answer.body.clone()).collect();
    bodies.sort_unstable();
    assert!(bodies == (0..MANY).map(|i| Bytes::from(long(i))).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_owner_holds_no_more_than_pods_have() {
    let pod = StubPod::gated(1).await;
    let fleet = Fleet::with(2, service(SERVICE), &[&pod], bounds).await.meet().await;
    let asking = send(&fleet.0[1].bench);
    eventually(|| pod.in_hand() + fleet.0[0].bench.waiting() == MANY).await;
    assert!(fleet.0[0].bench.gateway.owner().waiting_bytes() > (MANY - 1) * LONG, "they count as what waits");
    pod.open();
    all_came_back(&asking.join_all().await);
    assert_eq!(fleet.0[1].forwarded("answered"), MANY);
}

#[tokio::test]
async fn they_go_to_the_next_owner_when_the_first_dies() {
    let pod = StubPod::gated(1).await;
    let mut fleet = Fleet::with(3, service(SERVICE), &[&pod], bounds).await.meet().await;
    let asking = send(&fleet.0[2].bench);
    eventually(|| pod.in_hand() + fleet.0[0].bench.waiting() == MANY).await;
    fleet.0[0].kill();
    eventually(|| fleet.0[1].bench.waiting() >= MANY - 1).await;
    pod.open();
    all_came_back(&asking.join_all().await);
    assert_eq!(fleet.0[1].answered(), MANY);
}

#[tokio::test]
async fn they_go_to_the_next_owner_when_the_first_ends() {
    let pod = StubPod::gated(1).await;
    let fleet = Fleet::with(3, service(SERVICE), &[&pod], bounds).await.meet().await;
    let asking = send(&fleet.0[2].bench);
    eventually(|| pod.in_hand() + fleet.0[0].bench.waiting() == MANY).await;
    let ending = GatewayPod { serves: false, ..fleet.0[0].pod.clone() };
    fleet.0.iter().for_each(|member| member.learn([&ending, &fleet.0[1].pod, &fleet.0[2].pod]));
    fleet.0[0].bench.shutdown.cancel();
    // The pod may have one of either owner.
    eventually(|| pod.in_hand() + fleet.0[1].bench.waiting() == MANY).await;
    pod.open();
    all_came_back(&asking.join_all().await);
    assert_eq!(fleet.0[2].forwarded("failed"), 0, "each was given back");
}

/// Its answer comes before its body was read, and is heard all the same.
#[tokio::test]
async fn who_is_refused_hears_why() {
    let pod = StubPod::gated(1).await;
    let narrow = Service { queued: Some(1), ..service(SERVICE) };
    let fleet = Fleet::with(2, narrow, &[&pod], bounds).await.meet().await;
    let (owner, entry) = (&fleet.0[0].bench, fleet.0[1].bench.clone());
    let mut held = JoinSet::new();
    for i in 0..2 {
        let bench = entry.clone();
        held.spawn(async move { bench.ask(embed_long(i)).await });
        eventually(|| pod.in_hand() + owner.waiting() == i + 1).await;
    }
    for i in 0..50 {
        let answer = entry.ask(embed_long(i)).await;
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (429, "queue_full"));
    }
    pod.open();
    all_answered(&held.join_all().await);
    assert_eq!((fleet.0[1].forwarded("failed"), fleet.0[1].connected()), (0, 1));
}

/// The owner sees too little of it to know.
#[tokio::test]
async fn what_is_no_json_wakes_nobody() {
    let asleep = Service { replicas: 0, scales: true, ..service(SERVICE) };
    let fleet = Fleet::with(2, asleep, &[], bounds).await.meet().await;
    let answer = fleet.0[1].bench.ask(post("minilm.team", "/embed", "x".repeat(LONG))).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (400, "malformed_body"));
    assert_eq!((fleet.told().arrived, fleet.0[1].forwarded("answered")), (0, 0));
}

#[tokio::test]
async fn who_leaves_frees_its_room_at_the_owner() {
    let pod = StubPod::gated(1).await;
    let fleet = Fleet::with(2, service(SERVICE), &[&pod], bounds).await.meet().await;
    let owner = &fleet.0[0].bench;
    // More than there is room for, were it not given back.
    for _ in 0..5 {
        let mut asking = send(&fleet.0[1].bench);
        eventually(|| pod.in_hand() + owner.waiting() == MANY).await;
        asking.shutdown().await;
        eventually(|| pod.in_hand() + owner.waiting() == 0).await;
    }
    pod.open();
    all_came_back(&send(&fleet.0[1].bench).join_all().await);
    assert_eq!((fleet.0[1].forwarded("failed"), fleet.0[1].connected()), (0, 1), "over the same connection");
}
