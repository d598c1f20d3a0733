//! Pods that fail and die, with requests in hand.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::{Request, header::HOST};
use http_body_util::Full;
use kembed_queue::{
    ejection::{ERRORS, FIRST_EJECTION},
    wire::NOT_READY_HEADER,
};
use operator::gateway::{availability::Service, directory::Update};
use tokio::task::JoinSet;

use crate::{stub::*, support::*};

fn embed(text: &str) -> Request<Full<bytes::Bytes>> {
    post("minilm.team", "/embed", text.to_owned())
}

/// A metric, by the beginning of its line.
fn count(bench: &Bench, line: &str) -> u128 {
    let metrics = bench.metrics();
    metrics.lines().find_map(|text| text.strip_prefix(line)?.parse().ok()).expect("a count")
}

#[tokio::test]
async fn what_a_dying_pod_had_in_hand_is_done_by_another() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[dying_pod().await, telling_pod("b").await]);
    let began = Instant::now();
    for _ in 0..40 {
        let answer = bench.ask(embed("x")).await;
        assert_eq!((answer.status.as_u16(), answer.json()["pod"].as_str()), (200, Some("b")));
    }
    let broke = count(&bench, "kembed_gateway_attempts_total{outcome=\"broke\"} ");
    // It is ejected, and probed again when that is over.
    let most = 1 + began.elapsed().as_millis() / FIRST_EJECTION.as_millis();
    assert!((1..=most).contains(&broke), "{broke} in {:?}", began.elapsed());
}

/// One request that aborts its process, beside a hundred clients of four pods: it is tried twice, the second time alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_request_kills_two_pods_at_most_and_harms_nobody_else() {
    let mut pods = Vec::new();
    for _ in 0..4 {
        let pod = StubPod::start(8).await;
        pod.stub.takes.store(2, Ordering::SeqCst);
        pods.push(pod);
    }
    let bench = Arc::new(Bench::start().await);
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    bench.add(service("team/minilm"), &addresses);
    let mut clients = JoinSet::new();
    for i in 0..100 {
        let bench = bench.clone();
        clients.spawn(async move {
            for j in 0..10 {
                let answer = bench.ask(embed(&format!("{i} {j}"))).await;
                assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            }
        });
    }
    let answer = bench.ask(embed(POISON)).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (502, "pods_died"));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    clients.join_all().await;
    let deaths: usize = pods.iter().map(|pod| pod.stub.deaths.load(Ordering::SeqCst)).sum();
    assert_eq!(deaths, 2);
}

#[tokio::test]
async fn an_error_is_tried_elsewhere_and_then_told_as_the_pod_tells_it() {
    let (a, b) = (StubPod::start(1).await, StubPod::start(1).await);
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[a.address, b.address]);
    lock(&a.stub.fails).push_back(failure());
    lock(&b.stub.fails).push_back(failure());
    assert_eq!(bench.ask(embed("x")).await.status, 200, "the third attempt");
    for pod in [&a, &b] {
        lock(&pod.stub.fails).extend([(); 3].map(|()| failure()));
    }
    let answer = bench.ask(embed("x")).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (500, b"failed".as_slice()));
    assert_eq!(a.came().len() + b.came().len(), 3 + 3);
}

/// Its process started again, which the API server has not told yet: who asked waits for as long as it loads.
#[tokio::test]
async fn a_pod_that_loads_its_model_again_is_waited_for() {
    let pod = StubPod::start(1).await;
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[pod.address]);
    lock(&pod.stub.fails).extend([(); 5].map(|()| unready()));
    let answer = bench.ask(embed("x")).await;
    assert_eq!((answer.status.as_u16(), answer.header(NOT_READY_HEADER)), (200, None));
    assert_eq!(pod.came().len(), 5 + 1);
    let metrics = bench.metrics();
    assert!(metrics.contains("attempts_total{outcome=\"unready\"} 5\n"), "{metrics}");
}

/// Nobody else can take what was held so long: the client hears what the pod says.
#[tokio::test]
async fn a_pod_that_never_gets_ready_is_told_of_in_the_end() {
    let pod = StubPod::start(1).await;
    let bench = Bench::start().await;
    let queue_timeout = Some(Duration::from_secs(1));
    bench.add(Service { queue_timeout, ..service("team/minilm") }, &[pod.address]);
    lock(&pod.stub.fails).extend([(); 100].map(|()| unready()));
    let answer = bench.ask(embed("x")).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (503, b"failed".as_slice()));
    assert_eq!((answer.header("x-should-retry"), answer.header(NOT_READY_HEADER)), (Some("true"), None));
}

#[tokio::test]
async fn a_pod_that_is_gone_is_not_waited_for() {
    let (gone, other) = (StubPod::gated(1).await, StubPod::gated(1).await);
    let bench = Arc::new(Bench::start().await);
    bench.add(service("team/minilm"), &[gone.address]);
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { bench.ask(embed("x")).await }
    });
    eventually(|| gone.in_hand() == 1).await;
    other.open();
    let successor = pod(&name("team/minilm"), "successor", other.address);
    bench.knowledge.update(|directory| {
        directory.update_pods(Update::All(vec![successor]));
        let asked: Vec<_> = directory.unproven().collect();
        asked.iter().for_each(|probe| directory.proven(probe, SPACE.to_owned()));
    });
    assert_eq!(asking.await.expect("no panic").body, "x");
    assert_eq!(other.came(), ["x"]);
    eventually(|| gone.in_hand() == 0).await;
}

#[tokio::test]
async fn a_pod_that_nobody_reaches_is_ejected_and_probed_until_it_is_back() {
    let away = nobody();
    let there = StubPod::start(1).await;
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[away, there.address]);
    for _ in 0..50 {
        assert_eq!(bench.ask(embed("x")).await.status, 200);
    }
    let failures = count(&bench, "kembed_gateway_connect_failures_total ");
    assert!((1..10).contains(&failures), "{failures} of 50");
    assert!(count(&bench, "kembed_gateway_ejections_total ") > 0);
    let back = StubPod::at(away).await;
    let asked = async {
        while back.came().is_empty() {
            assert_eq!(bench.ask(embed("x")).await.status, 200);
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("it is probed");
}

/// Its process became another one since it was asked, and nobody has told the gateway yet.
#[tokio::test]
async fn vectors_of_another_space_never_pass() {
    let pod = StubPod::start(1).await;
    let other = || {
        let mut answer = http::Response::new(bytes::Bytes::from("vectors"));
        answer.headers_mut().insert("x-kembed-space", http::HeaderValue::from_static("sha256:two"));
        answer
    };
    lock(&pod.stub.fails).extend([other(), other(), other(), other()]);
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[pod.address]);
    let answer = bench.ask(embed("x")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (502, "pod_failed"));
}

#[tokio::test]
async fn a_pod_that_is_too_slow_is_not_waited_for() {
    let pod = StubPod::gated(1).await;
    let bench = Bench::start().await;
    let hasty = Service { request_timeout: Some(Duration::from_millis(50)), ..service("team/minilm") };
    bench.add(hasty, &[pod.address]);
    let answer = bench.ask(embed("x")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (504, "timeout"));
    eventually(|| pod.in_hand() == 0).await;
    let deadline = Request::post("/embed").header(HOST, "minilm.team").header("x-kembed-deadline-ms", "20");
    let answer = bench.ask(deadline.body(Full::from("x")).expect("a request")).await;
    assert_eq!(answer.status, 504);
}

/// Once, a client in a hurry had pods ejected that were well, for everybody.
#[tokio::test]
async fn a_clients_deadline_is_not_its_pods_fault() {
    let pod = StubPod::gated(1).await;
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[pod.address]);
    // Where the machine is slow, some do not get as far as the pod.
    let enough = format!("kembed_gateway_attempts_total{{outcome=\"too_late\"}} {}\n", 2 * ERRORS);
    while !bench.metrics().contains(&enough) {
        let hurry = Request::post("/embed").header(HOST, "minilm.team").header("x-kembed-deadline-ms", "20");
        let answer = bench.ask(hurry.body(Full::from("x")).expect("a request")).await;
        assert_eq!(answer.status, 504);
    }
    assert!(bench.metrics().contains("kembed_gateway_ejections_total 0\n"), "{}", bench.metrics());
}
