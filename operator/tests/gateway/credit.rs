//! Pods get what they gave credit for, in order, and the faster ones more.

use std::sync::atomic::Ordering;

use http::{Request, header::HOST};
use http_body_util::Full;
use operator::gateway::credit::{Credit, PodCredit};
use tokio::task::JoinSet;

use crate::{stub::*, support::*};

fn embed(text: &str) -> Request<Full<bytes::Bytes>> {
    post("minilm.team", "/embed", text.to_owned())
}

/// A gateway before these pods.
async fn before(pods: &[&StubPod]) -> std::sync::Arc<Bench> {
    let bench = Bench::start().await;
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    bench.add(service("team/minilm"), &addresses);
    bench.into()
}

/// Sends requests at the same time, and waits for all answers.
async fn at_once(bench: &std::sync::Arc<Bench>, texts: impl Iterator<Item = String>) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for text in texts {
        let bench = bench.clone();
        asking.spawn(async move { bench.ask(embed(&text)).await });
    }
    asking.join_all().await
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| i.to_string())
}

#[tokio::test]
async fn a_pod_never_has_more_than_it_gave_credit_for() {
    let pod = StubPod::gated(3).await;
    pod.stub.takes.store(1, Ordering::SeqCst);
    let bench = before(&[&pod]).await;
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { at_once(&bench, numbers(100)).await }
    });
    // The first answer tells its credit.
    pod.stub.gate.add_permits(1);
    eventually(|| pod.in_hand() == 3).await;
    pod.open();
    let answers = asking.await.expect("no panic");
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(pod.stub.most.load(Ordering::SeqCst), 3);
    assert!(bench.metrics().contains("kembed_gateway_attempts_total{outcome=\"answered\"} 100\n"));
}

#[tokio::test]
async fn what_waits_goes_in_the_order_in_which_it_came() {
    let pod = StubPod::gated(1).await;
    let bench = before(&[&pod]).await;
    let mut asking = JoinSet::new();
    for text in numbers(20) {
        let (from, waiting) = (bench.clone(), asking.len());
        asking.spawn(async move { from.ask(embed(&text)).await });
        eventually(|| pod.in_hand() + bench.waiting() == waiting + 1).await;
    }
    pod.open();
    asking.join_all().await;
    assert_eq!(pod.came(), numbers(20).collect::<Vec<_>>());
}

/// What waits is bound to no pod: who has time takes it.
#[tokio::test]
async fn a_slow_pod_gets_less() {
    let (fast, slow) = (StubPod::start(2).await, StubPod::gated(2).await);
    let bench = before(&[&fast, &slow]).await;
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { at_once(&bench, numbers(100)).await }
    });
    eventually(|| fast.came().len() >= 98).await;
    slow.open();
    assert!(asking.await.expect("no panic").iter().all(|answer| answer.status == 200));
    let got = slow.came().len();
    assert!((1..=2).contains(&got), "{got}");
}

#[tokio::test]
async fn what_a_pod_has_no_credit_for_comes_again() {
    let pod = StubPod::start(1).await;
    lock(&pod.stub.fails).extend([no_credit(), no_credit()]);
    let bench = before(&[&pod]).await;
    let answer = bench.ask(embed("x")).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, b"x".as_slice()));
    let metrics = bench.metrics();
    assert!(metrics.contains("attempts_total{outcome=\"no_credit\"} 2\n"), "{metrics}");
}

/// Pods of the release before tell no credit, and must not be asked one by one for it.
#[tokio::test]
async fn pods_that_know_no_credit_are_still_kept_busy() {
    let old = StubPod::with(None, 0).await;
    let bench = before(&[&old]).await;
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { at_once(&bench, numbers(10)).await }
    });
    eventually(|| old.in_hand() == 1).await;
    old.stub.gate.add_permits(1);
    eventually(|| old.in_hand() == 9).await;
    old.open();
    assert!(asking.await.expect("no panic").iter().all(|answer| answer.status == 200));
}

/// Their own queue is full: that is no failure while they are not.
#[tokio::test]
async fn a_full_queue_of_such_a_pod_is_waited_for() {
    let old = StubPod::with(None, 100).await;
    let full = error(http::StatusCode::TOO_MANY_REQUESTS, &[("x-should-retry", "true")]);
    lock(&old.stub.fails).push_back(full);
    let bench = before(&[&old]).await;
    assert_eq!(bench.ask(embed("x")).await.status, 200);
}

#[tokio::test]
async fn what_pod_and_gateway_tell_each_other_stays_between_them() {
    let bench = Bench::start().await;
    bench.add(
        operator::gateway::availability::Service {
            revision: Some("c0ffee".to_owned()),
            ..service("team/minilm")
        },
        &[telling_pod("a").await],
    );
    let request = Request::post("/embed").header(HOST, "minilm.team").header("x-kembed-granted", "mine");
    let answer = bench.ask(request.body(Full::from("x")).expect("a request")).await;
    let told = answer.json();
    assert_eq!(told["headers"]["x-kembed-granted"], "true");
    let left: u64 =
        told["headers"]["x-kembed-deadline-ms"].as_str().and_then(|ms| ms.parse().ok()).expect("a time");
    assert!(left > 0 && u128::from(left) <= PATIENCE.as_millis(), "{left}");
    assert_eq!(answer.header("x-kembed-space"), Some(SPACE));
    assert_eq!(answer.header("x-kembed-revision"), Some("c0ffee"));
    assert_eq!(answer.header("x-kembed-pod-load"), None);
    let timing = answer.header("server-timing").expect("a timing");
    assert!(timing.starts_with("hold;dur=") && timing.contains("pod;dur="), "{timing}");
    let straight = Request::get("/info").header(HOST, "minilm.team").header("x-kembed-granted", "mine");
    let told = bench.ask(straight.body(Full::<bytes::Bytes>::default()).expect("a request")).await.json();
    assert!(told["headers"].get("x-kembed-granted").is_none());
}

#[tokio::test]
async fn what_pods_may_be_given_and_have_is_told() {
    let (gated, other) = (StubPod::gated(3).await, StubPod::gated(3).await);
    let mut bench = Bench::start().await;
    let owner = bench.gateway.owner().clone();
    bench.registry.register_collector(Box::new(PodCredit::new(owner.clone())));
    bench.add(service("team/minilm"), &[gated.address]);
    bench.add(service("team/other"), &[other.address]);
    assert_eq!(owner.credit(), Credit::default(), "nobody has told anything");
    let bench = std::sync::Arc::new(bench);
    gated.stub.gate.add_permits(1);
    assert_eq!(bench.ask(embed("1")).await.status, 200);
    let told = load(3, 0).credit;
    assert_eq!(owner.credit(), Credit { tokens: told, ..Credit::default() });

    let mut asking = JoinSet::new();
    for request in [embed("2"), embed("3"), post("other.team", "/embed", "4")] {
        let bench = bench.clone();
        asking.spawn(async move { bench.ask(request).await });
    }
    eventually(|| gated.in_hand() + other.in_hand() == 3).await;
    assert_eq!(owner.credit(), Credit { tokens: told, interactive: 3 * SHORT, ..Credit::default() });
    let metrics = bench.metrics();
    for line in [
        format!("kembed_gateway_credit_tokens {told}\n"),
        format!("kembed_gateway_in_hand_tokens{{lane=\"interactive\"}} {}\n", 3 * SHORT),
        "kembed_gateway_in_hand_tokens{lane=\"bulk\"} 0\n".to_owned(),
        "kembed_gateway_ejected_pods 0\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in\n{metrics}");
    }

    // A pod that dies is given nothing for a while.
    other.die();
    other.open();
    gated.open();
    asking.join_all().await;
    eventually(|| owner.credit().interactive == 0).await;
    assert!(bench.metrics().contains("kembed_gateway_ejections_total 1\n"));
}
