//! Who owns a service, and what becomes of its requests when that changes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{Router, routing::post as answer_post};
use bytes::Bytes;
use http::{HeaderValue, Request, header::HOST};
use http_body_util::Full;
use kembed_queue::{credit::POD_LOAD_HEADER, report::Level};
use operator::gateway::{
    availability::Service,
    directory::Update,
    keys::{Allowance, ApiKey, KeyHash},
    link,
    objects::GatewayPod,
    server::Drain,
};
use tokio::{io::AsyncReadExt, sync::Semaphore, task::JoinSet};

use crate::{fleet::*, stub::*, support::*};

#[tokio::test]
async fn all_requests_of_a_service_pass_one_gateway() {
    let pod = StubPod::start(2).await;
    pod.stub.takes.store(1, Ordering::SeqCst);
    let fleet = Fleet::start(3, &[&pod]).await.meet().await;
    all_answered(&fleet.ask(&[0, 1, 2], 150).await);
    let answered: Vec<_> = fleet.0.iter().map(Member::answered).collect();
    let forwarded: Vec<_> = fleet.0.iter().map(|member| member.forwarded("answered")).collect();
    assert_eq!((answered, forwarded), (vec![150, 0, 0], vec![0, 50, 50]));
    assert_eq!(pod.stub.most.load(Ordering::SeqCst), 2, "never more than it gave credit for");
    assert!(!fleet.0[0].bench.metrics().contains("no_credit"), "nor was it asked for more");
}

#[tokio::test]
async fn what_is_forwarded_arrives_and_comes_back_unchanged() {
    let fleet = Fleet::start(2, &[]).await.meet().await;
    let pod = telling_pod("a").await;
    fleet.0.iter().for_each(|member| member.bench.add(service(SERVICE), &[pod]));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::post("/embed?x=1")
        .header(HOST, "minilm.team")
        .header("traceparent", trace)
        .header("authorization", "Bearer of the pod")
        .header("x-kembed-forwarded", "other/service")
        .header("x-kembed-waited-us", "forged")
        .header("x-kembed-history", "errors=2, suspect");
    let answer = fleet.0[1].bench.ask(request.body(Full::<Bytes>::from("text")).expect("a request")).await;
    let told = answer.json();
    assert_eq!((told["method"].as_str(), told["target"].as_str()), (Some("POST"), Some("/embed?x=1")));
    assert_eq!((told["body"].as_str(), told["version"].as_str()), (Some("text"), Some("HTTP/1.1")));
    let headers = &told["headers"];
    assert_eq!(
        (headers["host"].as_str(), headers["traceparent"].as_str()),
        (Some("minilm.team"), Some(trace))
    );
    assert_eq!(headers["authorization"], "Bearer of the pod");
    for own in ["x-kembed-forwarded", "x-kembed-waited-us", "x-kembed-history"] {
        assert!(headers.get(own).is_none(), "{own}");
    }
    assert_eq!(answer.header("x-kembed-space"), Some(SPACE));
    assert_eq!(fleet.0[1].forwarded("answered"), 1);
    let info = fleet.0[1].bench.ask(get("minilm.team", "/info")).await;
    assert_eq!((info.status.as_u16(), fleet.0[1].forwarded("answered")), (200, 1), "any gateway can do that");
    let refused = fleet.0[1].bench.ask(post("minilm.team", "/embed", vec![b'x'; 2048])).await;
    assert_eq!((refused.status.as_u16(), refused.error().0.as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn long_answers_stream_through() {
    let fleet = Fleet::start(2, &[]).await.meet().await;
    let long: Bytes = (0..2_000_000u32).map(|i| i as u8).collect::<Vec<_>>().into();
    let sent = long.clone();
    let pod = pod_with(Router::new().route("/embed", answer_post(async move || sent))).await;
    fleet.0.iter().for_each(|member| member.bench.add(service(SERVICE), &[pod]));
    assert_eq!(fleet.0[1].bench.ask(embed("x")).await.body, long);
}

#[tokio::test]
async fn keys_are_counted_in_one_place() {
    // It does not tell how many tokens there were, so that each request is taken for one.
    let pod = StubPod::with(None, Semaphore::MAX_PERMITS).await;
    // Five at once, and another one each twelve seconds.
    let allowance = Allowance { tokens_per_minute: Some(5), ..Allowance::default() };
    let key = ApiKey { name: "key".to_owned(), hash: Some(KeyHash::of(b"secret")), allowance };
    let closed = Service { keys: vec![key], ..service(SERVICE) };
    let fleet = Fleet::with(3, closed, &[&pod], |_, _| ()).await.meet().await;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for i in 0..30 {
        let bench = fleet.0[i % 3].bench.clone();
        let request = Request::post("/embed").header(HOST, "minilm.team").header("api-key", "secret");
        let request = request.body(Full::<Bytes>::from("x")).expect("a request");
        asking.spawn(async move { bench.ask(request).await.status.as_u16() });
    }
    let statuses = asking.join_all().await;
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    let most = 5 + began.elapsed().as_secs() as usize / 12 + 1;
    assert!((5..=most).contains(&admitted) && admitted < 15, "{admitted} in {:?}", began.elapsed());
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert_eq!(fleet.0[1].bench.ask(embed("x")).await.status, 401);
}

#[tokio::test]
async fn when_the_owner_dies_the_others_lose_nothing() {
    let pod = StubPod::start(4).await;
    pod.stub.takes.store(5, Ordering::SeqCst);
    let mut fleet = Fleet::start(3, &[&pod]).await.meet().await;
    let load = Load::on(&fleet, &[1, 2]);
    load.more(100).await;
    fleet.0[0].kill();
    load.more(200).await;
    load.end().await;
    eventually(|| fleet.0[1].connected() == 1 && fleet.0[2].connected() == 1).await;
    let before = fleet.0[2].answered();
    all_answered(&fleet.ask(&[1, 2], 20).await);
    assert_eq!(fleet.0[2].answered(), before, "the next one owns it");
}

/// As SIGSTOP does, or a node that dies: nothing closes, and nothing answers.
#[tokio::test]
async fn an_owner_that_falls_silent_is_given_up() {
    let pod = StubPod::start(4).await;
    let soon = |_, setup: &mut Setup| setup.trust = link::Patience::default();
    let fleet = Fleet::with(3, service(SERVICE), &[&pod], soon).await.meet().await;
    // It is not taken for silent before it is.
    eventually(|| fleet.0[1].bench.peers.successor(&name(SERVICE)) == Some(fleet.0[0].pod.name.clone()))
        .await;
    all_answered(&fleet.ask(&[1], 1).await);
    let answered = fleet.0[0].answered();
    let (stopped, is_stopped) = std::sync::mpsc::channel();
    let (wake, is_woken) = std::sync::mpsc::channel::<()>();
    fleet.0[0].runtime.as_ref().expect("it lives").spawn(async move {
        stopped.send(()).expect("a test that waits");
        // To the end of the test.
        let _ = is_woken.recv();
    });
    is_stopped.recv().expect("its only thread");
    all_answered(&fleet.ask(&[1, 2], 20).await);
    all_answered(&fleet.ask(&[1, 2], 20).await);
    assert_eq!(fleet.0[0].answered(), answered);
    drop(wake);
}

#[tokio::test]
async fn an_owner_that_ends_hands_over_what_waits() {
    let pod = StubPod::gated(1).await;
    let fleet = Fleet::start(3, &[&pod]).await.meet().await;
    let mut asking = JoinSet::new();
    let entries = [0, 1, 2].map(|entry| fleet.0[entry].bench.clone());
    line_up(&mut asking, &entries, || pod.in_hand() + fleet.0[0].bench.waiting()).await;
    // As Kubernetes does it: first the pod is marked, which all hear of, and then the process.
    let ending = GatewayPod { serves: false, ..fleet.0[0].pod.clone() };
    fleet.0.iter().for_each(|member| member.learn([&ending, &fleet.0[1].pod, &fleet.0[2].pod]));
    fleet.0[0].bench.shutdown.cancel();
    eventually(|| fleet.0[0].bench.waiting() == 0).await;
    eventually(|| pod.in_hand() + fleet.0[1].bench.waiting() == LINE).await;
    pod.open();
    all_answered(&asking.join_all().await);
    in_order(&pod.came());
    eventually(|| fleet.0[0].bench.server.is_finished()).await;
    eventually(|| fleet.told().answered == LINE as u64).await;
    let told = fleet.told();
    assert_eq!((told.arrived, told.cancelled, told.refused, told.failed), (LINE as u64, 0, 0, 0));
}

/// What it took with it is lost; what waited for it is not, and has been told of.
#[tokio::test]
async fn what_an_owner_that_died_had_told_of_is_not_counted_again() {
    const HELD: usize = 20;
    let pod = StubPod::gated(1).await;
    let mut fleet = Fleet::start(3, &[&pod]).await.meet().await;
    let mut asking = JoinSet::new();
    for i in 0..HELD {
        let bench = fleet.0[1 + i % 2].bench.clone();
        asking.spawn(async move { bench.ask(embed("x")).await });
    }
    eventually(|| pod.in_hand() + fleet.0[0].bench.waiting() == HELD).await;
    // Longer than it takes to tell the leader.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fleet.0[0].kill();
    // At the next one, but for what that one gave back because it had not yet heard of the death.
    let left = || fleet.0[1..].iter().map(Member::counted);
    let there = |level: Level| level.waiting.total() + level.in_hand.total();
    eventually(|| left().map(|(_, level)| there(level)).sum::<u64>() == HELD as u64).await;
    assert_eq!(left().map(|(counts, _)| counts.arrived).sum::<u64>(), 0);
    pod.open();
    all_answered(&asking.join_all().await);
}

/// The first gateway's only pod dies of it and does not come back, and then another gateway comes to own the service.
#[tokio::test]
async fn who_is_suspect_at_one_owner_is_suspect_at_the_next() {
    let fleet = Fleet::start(3, &[]).await;
    let [joins, first, second] = &fleet.0[..] else { panic!("three") };
    let (dies_for_good, other) = (dying_once().await, StubPod::start(1).await);
    joins.bench.add(service(SERVICE), &[other.address]);
    for member in [first, second] {
        member.bench.add(service(SERVICE), &[dies_for_good]);
        member.learn([&first.pod, &second.pod]);
        eventually(|| member.connected() == 1).await;
    }
    let asking = tokio::spawn({
        let bench = second.bench.clone();
        async move { bench.ask(embed(POISON)).await }
    });
    eventually(|| first.counts("kembed_gateway_attempts_total{outcome=\"broke\"} ") == 1).await;
    let fleet = fleet.meet().await;
    let answer = asking.await.expect("no panic");
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (502, "pods_died"));
    assert_eq!(other.stub.deaths.load(Ordering::SeqCst), 1, "the second that died of it is the last");
    eventually(|| fleet.told().failed == 1).await;
    assert_eq!(fleet.told().arrived, 1);
}

/// A pod that dies with the first request that it gets.
async fn dying_once() -> std::net::SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a request");
        let _ = stream.read(&mut [0; 1024]).await;
    });
    address
}

/// Nor do the others hear of it from anybody but the gateway itself, as when a process alone is ended.
#[tokio::test]
async fn gateways_may_end_one_after_the_other_under_load() {
    let pod = StubPod::start(4).await;
    pod.stub.takes.store(2, Ordering::SeqCst);
    let fleet = Fleet::start(3, &[&pod]).await.meet().await;
    let load = Load::on(&fleet, &[2]);
    load.more(50).await;
    for ended in &fleet.0[..2] {
        ended.bench.shutdown.cancel();
        load.more(100).await;
        eventually(|| ended.bench.server.is_finished()).await;
        load.more(50).await;
    }
    load.end().await;
    let answered: Vec<_> = fleet.0.iter().map(Member::answered).collect();
    assert!(answered.iter().all(|&count| count > 0), "each was its owner for a while: {answered:?}");
}

/// No pod's readiness is needed for that, which changes seconds later.
#[tokio::test]
async fn a_gateway_that_ends_says_so_to_who_forwards_to_it() {
    let pod = StubPod::start(4).await;
    let stays = |_, setup: &mut Setup| setup.drain = Drain { delay: PATIENCE, timeout: PATIENCE };
    let fleet = Fleet::with(3, service(SERVICE), &[&pod], stays).await.meet().await;
    fleet.0[0].bench.shutdown.cancel();
    for _ in 0..5 {
        all_answered(&fleet.ask(&[1, 2], 2).await);
    }
    let moved: Vec<_> = fleet.0.iter().map(|member| member.forwarded("moved")).collect();
    // Who was told by it alone may be given one back by the other, which was not yet.
    assert!(moved[0] == 0 && moved[1..].iter().all(|times| (1..5).contains(times)), "each time: {moved:?}");
    assert_eq!(fleet.0[0].connected(), 2, "it is still there");
}

#[tokio::test]
async fn a_gateway_that_joins_takes_what_waits_in_its_order() {
    let pod = StubPod::gated(1).await;
    let fleet = Fleet::start(3, &[&pod]).await;
    let [_, first, second] = &fleet.0[..] else { panic!("three") };
    for member in [first, second] {
        member.learn([&first.pod, &second.pod]);
        eventually(|| member.connected() == 1).await;
    }
    let mut asking = JoinSet::new();
    let entries = [first, second].map(|member| member.bench.clone());
    line_up(&mut asking, &entries, || pod.in_hand() + first.bench.waiting()).await;
    let fleet = fleet.meet().await;
    let (joined, left) = (&fleet.0[0], &fleet.0[1]);
    eventually(|| left.bench.waiting() == 0 && joined.bench.waiting() + pod.in_hand() == LINE).await;
    pod.open();
    all_answered(&asking.join_all().await);
    in_order(&pod.came());
    assert_eq!((left.answered(), joined.answered()), (1, LINE - 1), "what was in hand stayed where it was");
    eventually(|| fleet.told().answered == LINE as u64).await;
    let told = fleet.told();
    assert_eq!((told.arrived, told.cancelled), (LINE as u64, 0), "each came once");
    assert!(told.waits.interactive.quantile(0.5) > Some(APART), "and waited for as long as it did");
}

/// Requests that come at about the same time. A move adds the time of the way to each one's, so that their order is not told.
const GROUP: usize = 10;

/// The time between groups, which is longer than any way here, also on a busy machine.
const APART: Duration = Duration::from_secs(2);

/// Requests in a line.
const LINE: usize = 20;

/// Sends them by turns to each of these gateways, where the pod has the first and the others come to wait.
async fn line_up(asking: &mut JoinSet<Answer>, entries: &[Arc<Bench>], came: impl Fn() -> usize) {
    for i in 0..LINE {
        let bench = entries[i % entries.len()].clone();
        asking.spawn(async move { bench.ask(embed(&i.to_string())).await });
        eventually(|| came() == i + 1).await;
        if (i + 1) % GROUP == 0 {
            tokio::time::sleep(APART).await;
        }
    }
}

/// Each came once, and groups in order: but for what was in hand, and what came first to the new owner, which knew of no other.
fn in_order(came: &[String]) {
    let came: Vec<usize> = came.iter().map(|text| text.parse().expect("a number")).collect();
    let mut sorted = came.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..LINE).collect::<Vec<_>>());
    assert!(came[0] == 0 && came[2..].is_sorted_by_key(|i| i / GROUP), "{came:?}");
}

/// A pod that refuses what is more than its credit, as inference pods do.
async fn strict_pod(texts: usize) -> std::net::SocketAddr {
    let credit = Arc::new(Semaphore::new(texts));
    let load = HeaderValue::try_from(load(texts as u64, 0).to_string()).expect("digits");
    let serve = async move || {
        let Ok(_credit) = credit.try_acquire() else {
            let mut refused = no_credit().map(axum::body::Body::from);
            refused.headers_mut().insert(POD_LOAD_HEADER, load);
            return refused;
        };
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut answer = http::Response::new(axum::body::Body::from("vector"));
        answer.headers_mut().insert(POD_LOAD_HEADER, load);
        answer
    };
    pod_with(Router::new().route("/embed", answer_post(serve))).await
}

#[tokio::test]
async fn two_owners_at_a_time_lose_nothing() {
    let fleet = Fleet::start(2, &[]).await;
    let pod = strict_pod(2).await;
    fleet.0.iter().for_each(|member| member.bench.add(service(SERVICE), &[pod]));
    // Neither knows of the other. Where one happens to be done before the other begins, they are asked again.
    let refused = |member: &Member| member.counts("kembed_gateway_attempts_total{outcome=\"no_credit\"} ");
    let mut each = 0;
    while fleet.0.iter().map(refused).sum::<usize>() == 0 {
        assert!(each < 1000, "the pod has to refuse");
        all_answered(&fleet.ask(&[0, 1], 200).await);
        each += 100;
    }
    assert_eq!(fleet.0.iter().map(Member::answered).collect::<Vec<_>>(), [each, each]);
}

#[tokio::test]
async fn a_request_is_forwarded_once() {
    let pod = StubPod::start(1).await;
    let fleet = Fleet::start(2, &[&pod]).await;
    let [one, other] = &fleet.0[..] else { panic!("two") };
    // Each takes the other for the owner.
    let unready = |pod: &GatewayPod| GatewayPod { serves: false, ..pod.clone() };
    one.learn([&unready(&one.pod), &other.pod]);
    other.learn([&one.pod, &unready(&other.pod)]);
    for member in [one, other] {
        eventually(|| member.connected() == 1).await;
    }
    all_answered(&fleet.ask(&[0, 1], 20).await);
    // What is forwarded goes no further: else nobody would ever be answered.
    let sent = |member: &Member| member.forwarded("answered") + member.forwarded("moved");
    assert!(sent(one) >= 10 && sent(other) >= 10, "{} and {}", sent(one), sent(other));
    // By whom depends, and whether some went twice: each gives back what still waits there when it looks whose that is, which
    // it does twice a second.
    assert_eq!([one, other].map(Member::answered).iter().sum::<usize>(), 20);
}

/// Nor do requests get lost that wait while two gateways each send them to the other.
#[tokio::test]
async fn gateways_that_disagree_answer_all_the_same() {
    let pod = StubPod::gated(1).await;
    let fleet = Arc::new(Fleet::start(2, &[&pod]).await);
    let [one, other] = &fleet.0[..] else { panic!("two") };
    let unready = |pod: &GatewayPod| GatewayPod { serves: false, ..pod.clone() };
    one.learn([&unready(&one.pod), &other.pod]);
    other.learn([&one.pod, &unready(&other.pod)]);
    for member in [one, other] {
        eventually(|| member.connected() == 1).await;
    }
    let asking = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.ask(&[0, 1], 20).await }
    });
    eventually(|| one.forwarded("moved") > 0 && other.forwarded("moved") > 0).await;
    pod.open();
    all_answered(&asking.await.expect("no panic"));
}

#[tokio::test]
async fn who_leaves_frees_its_place_at_the_owner() {
    let pod = StubPod::gated(1).await;
    let fleet = Fleet::start(2, &[&pod]).await.meet().await;
    let mut held = JoinSet::new();
    for _ in 0..300 {
        let bench = fleet.0[1].bench.clone();
        held.spawn(async move { bench.ask(embed("x")).await });
    }
    let owner = &fleet.0[0];
    eventually(|| pod.in_hand() + owner.bench.waiting() == 300).await;
    held.shutdown().await;
    eventually(|| pod.in_hand() + owner.bench.waiting() == 0).await;
    pod.open();
    all_answered(&fleet.ask(&[1], 1).await);
    assert_eq!((fleet.0[1].connected(), fleet.0[1].forwarded("failed")), (1, 0), "over the same connection");
}

#[tokio::test]
async fn a_gateway_that_does_not_know_the_service_yet_passes_it_on() {
    let pod = StubPod::start(1).await;
    let fleet = Fleet::start(2, &[&pod]).await.meet().await;
    fleet.0[0].bench.knowledge.update(|directory| directory.update_services(Update::All(vec![])));
    all_answered(&fleet.ask(&[1], 3).await);
    // Some were given away twice or more: what still waits when a gateway looks whose that is, which it does twice a second.
    let (moved, answered) = (fleet.0[1].forwarded("moved"), fleet.0[1].answered());
    assert!(moved >= 3 && answered == 3, "{moved} and {answered}");
}

/// What another gateway would say is not a pod's to say.
#[tokio::test]
async fn no_pod_sends_requests_elsewhere() {
    let fleet = Fleet::start(2, &[]).await.meet().await;
    let serve = async || ([("x-kembed-moved", "*")], "vector");
    let pod = pod_with(Router::new().route("/embed", answer_post(serve))).await;
    fleet.0.iter().for_each(|member| member.bench.add(service(SERVICE), &[pod]));
    for member in &fleet.0 {
        let answer = member.bench.ask(embed("x")).await;
        assert_eq!((answer.body.as_ref(), answer.header("x-kembed-moved")), (&b"vector"[..], None));
    }
    assert_eq!(fleet.0[1].forwarded("answered"), 1);
}

#[tokio::test]
async fn a_gateway_is_ready_when_it_has_tried_the_others() {
    let fleet = Fleet::start(2, &[]).await;
    let [one, other] = &fleet.0[..] else { panic!("two") };
    assert!(!one.bench.gateway.is_ready(), "it does not know which there are");
    let gone = GatewayPod { name: "gone".to_owned(), address: Some(nobody()), ..other.pod.clone() };
    one.learn([&one.pod, &other.pod, &gone]);
    eventually(|| one.bench.gateway.is_ready()).await;
    assert_eq!(one.connected(), 1);
}

#[tokio::test]
async fn what_is_not_forwarded_is_not_answered_at_that_port() {
    let fleet = Fleet::start(1, &[]).await;
    let bench = &fleet.0[0].bench;
    let at = Bench { address: bench.internal, ..Bench::start().await };
    assert_eq!(at.ask(get("minilm.team", "/v1/models")).await.status, 404);
    let forwarded = Request::post("/embed").header("x-kembed-forwarded", "team/nothing");
    let answer = at.ask(forwarded.body(Full::<Bytes>::default()).expect("a request")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-kembed-moved")), (503, Some("*")));
}
