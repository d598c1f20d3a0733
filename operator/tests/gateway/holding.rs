//! Requests that wait because there is no pod for them yet.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Json, Router, routing::get as answer};
use http::{Method, Request, header::HOST};
use http_body_util::Full;
use kembed_queue::wire::{Info, Space};
use operator::gateway::{
    availability::{Pod, Service},
    directory::Update,
    inference::Terms,
    owner::Asked,
    probe,
    refusal::Refusal,
    server::Drain,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{stub::*, support::*};

const BODY: &str = r#"{"input": "x"}"#;

fn embed(body: &str) -> Request<Full<bytes::Bytes>> {
    post("minilm.team", "/v1/embeddings", body.to_owned())
}

/// A service that sleeps.
fn asleep() -> Service {
    Service { replicas: 0, scales: true, ..service("team/minilm") }
}

/// A request as the owner gets it, without a connection.
fn asked(body: String) -> Asked {
    let (head, ()) = Request::post("/").body(()).expect("a request").into_parts();
    let target = "/v1/embeddings".parse().expect("a path");
    let (service, head, body) = (name("team/minilm"), head.into(), body.into());
    Asked { service, head, target, body, offer: None, terms: Terms::default() }
}

/// JSON, of the same length whichever it is.
fn numbered(i: usize) -> String {
    format!("\"{i:04}\"")
}

/// Sends a request that is held.
fn hold(bench: &Arc<Bench>, request: Request<Full<bytes::Bytes>>) -> tokio::task::JoinHandle<Answer> {
    let bench = bench.clone();
    tokio::spawn(async move { bench.ask(request).await })
}

#[tokio::test]
async fn thousands_are_held_and_answered_in_order_when_a_pod_comes() {
    const HELD: usize = 3000;
    let pod = StubPod::start(1).await;
    let mut setup = Setup::default();
    setup.limits.wait.bytes = 1 << 20;
    // However busy the machine is: none of them may be sent away.
    setup.limits.wait.time = Duration::from_secs(3600);
    setup.limits.request_timeout = Duration::from_secs(3600);
    let bench = Bench::start_with(setup).await;
    bench.add(asleep(), &[]);
    let mut held = JoinSet::new();
    for i in 0..HELD {
        let owner = bench.gateway.owner().clone();
        // On one thread tasks run in the order in which they are spawned.
        held.spawn(async move { owner.serve(asked(numbered(i))).await });
    }
    eventually(|| bench.waiting() == HELD).await;
    assert_eq!(bench.gateway.owner().waiting_bytes(), HELD * numbered(0).len());
    bench.add(service("team/minilm"), &[pod.address]);
    for served in held.join_all().await {
        assert_eq!(served.expect("an answer").response.status(), 200);
    }
    assert_eq!(pod.came(), (0..HELD).map(numbered).collect::<Vec<_>>());
    assert_eq!((bench.waiting(), bench.gateway.owner().waiting_bytes()), (0, 0));
}

#[tokio::test]
async fn only_requests_for_vectors_are_held() {
    let bench = Arc::new(Bench::start().await);
    bench.add(asleep(), &[]);
    for path in ["/", "/info", "/health", "/health/ready", "/v1/models", "/metrics", "/ui", "/?content="] {
        let answer = bench.ask(get("minilm.team", path)).await;
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (503, "ScaledToZero"), "{path}");
    }
    for method in [Method::OPTIONS, Method::HEAD] {
        let mut request = embed("");
        *request.method_mut() = method;
        assert_eq!(bench.ask(request).await.status, 503);
    }
    let answer = bench.ask(embed("no json")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (400, "malformed_body"));
    assert_eq!(bench.gateway.owner().figures().len(), 0, "nobody hears of any of these");
    let held = [hold(&bench, embed(BODY)), hold(&bench, get("minilm.team", "/?content=x"))];
    eventually(|| bench.waiting() == 2).await;
    bench.add(service("team/minilm"), &[StubPod::start(1).await.address]);
    for held in held {
        assert_eq!(held.await.expect("no panic").status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_what_stood_in_the_way() {
    let bench = Bench::start().await;
    let short = not_ready("Unschedulable", "no node has nvidia.com/gpu free");
    let minutes = Some(Duration::from_secs(600));
    bench.add(Service { ready: short, queue_timeout: minutes, ..service("team/minilm") }, &[]);
    let began = Instant::now();
    let refusal = bench.gateway.owner().serve(asked(BODY.to_owned())).await.expect_err("there is no pod");
    let waited = began.elapsed();
    assert!((600..602).contains(&waited.as_secs()), "{waited:?}");
    let Refusal::Expired { waited, why: Some(why) } = refusal else { panic!("{refusal:?}") };
    assert_eq!((waited.as_secs(), why.reason.as_str()), (600, "Unschedulable"));
    assert_eq!(bench.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_clients_ends_its_wait() {
    let bench = Bench::start().await;
    bench.add(asleep(), &[]);
    let deadline = Some((Instant::now() + Duration::from_millis(300)).into_std());
    let hasty = Asked { terms: Terms { deadline, ..Terms::default() }, ..asked(BODY.to_owned()) };
    let refusal = bench.gateway.owner().serve(hasty).await.expect_err("there is no pod");
    assert!(
        matches!(refusal, Refusal::DeadlinePassed { waited } if waited.as_millis() == 300),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn who_leaves_waits_no_longer() {
    let bench = Arc::new(Bench::start().await);
    bench.add(asleep(), &[]);
    let held = hold(&bench, embed(BODY));
    eventually(|| bench.waiting() == 1).await;
    held.abort();
    eventually(|| bench.waiting() == 0).await;
    assert_eq!(bench.gateway.owner().waiting_bytes(), 0);
    let pod = StubPod::gated(1).await;
    bench.add(service("team/minilm"), &[pod.address]);
    let running = hold(&bench, embed(BODY));
    eventually(|| pod.in_hand() == 1).await;
    running.abort();
    eventually(|| pod.in_hand() == 0).await;
}

#[tokio::test]
async fn there_is_only_so_much_room_to_wait() {
    let bench = Arc::new(Bench::start().await);
    bench.add(Service { queued: Some(2), ..asleep() }, &[]);
    let _held = [hold(&bench, embed(BODY)), hold(&bench, embed(BODY))];
    eventually(|| bench.waiting() == 2).await;
    let answer = bench.ask(embed(BODY)).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (429, "queue_full"));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    let after: u64 = answer.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=60).contains(&after));
}

#[tokio::test]
async fn who_waits_hears_at_once_that_no_pod_can_come() {
    let bench = Arc::new(Bench::start().await);
    bench.add(asleep(), &[]);
    let held = hold(&bench, embed(BODY));
    eventually(|| bench.waiting() == 1).await;
    bench.add(Service { ready: not_ready("ModelNotFound", "no such model"), ..service("team/minilm") }, &[]);
    let answer = held.await.expect("no panic");
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (503, "ModelNotFound"));
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(bench.ask(embed(BODY)).await.error().0, "ModelNotFound", "nor does anybody begin to wait");
    bench.add(asleep(), &[]);
    let held = hold(&bench, embed(BODY));
    eventually(|| bench.waiting() == 1).await;
    bench.knowledge.update(|directory| directory.update_services(Update::All(vec![])));
    assert_eq!(held.await.expect("no panic").status, 404);
}

/// Regression: what came back from a pod after its service was gone waited for nobody.
#[tokio::test]
async fn what_a_pod_gives_back_when_its_service_is_gone_does_not_wait() {
    let bench = Arc::new(Bench::start().await);
    let pod = StubPod::gated(1).await;
    bench.add(service("team/minilm"), &[pod.address]);
    let held = hold(&bench, embed(BODY));
    eventually(|| pod.in_hand() == 1).await;
    bench.knowledge.update(|directory| {
        directory.update_services(Update::All(vec![]));
        directory.update_pods(Update::All(vec![]));
    });
    pod.die();
    assert_eq!(held.await.expect("no panic").status, 404);
}

#[tokio::test]
async fn a_request_may_demand_its_space() {
    let bench = Bench::start().await;
    let pod = StubPod::start(1).await;
    bench.add(service("team/minilm"), &[pod.address]);
    let demanding = |digest: &str| {
        let request = Request::post("/embed").header(HOST, "minilm.team").header("x-kembed-space", digest);
        request.body(Full::<bytes::Bytes>::from("x")).expect("a request")
    };
    assert_eq!(bench.ask(demanding(SPACE)).await.status, 200);
    let answer = bench.ask(demanding("sha256:two")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (412, "space_mismatch"));
    assert_eq!(pod.came().len(), 1, "no pod was asked");
}

/// The watch may take a second to tell that a pod is ready; the pod is asked itself while somebody waits.
#[tokio::test]
async fn a_pod_serves_as_soon_as_it_says_that_it_is_ready() {
    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let says = ready.clone();
    let space = Space { digest: SPACE.to_owned(), revision: None, dimension: 3, max_tokens: 256 };
    let info = Info {
        model_id: "hf://a/b".to_owned(),
        model_sha: None,
        max_input_length: 256,
        version: "0".to_owned(),
        space,
        tokens_per_second: None,
        devices: Vec::new(),
    };
    let is_ready = async move || match says.load(Ordering::SeqCst) {
        true => http::StatusCode::OK,
        false => http::StatusCode::SERVICE_UNAVAILABLE,
    };
    let router = Router::new()
        .route("/health/ready", answer(is_ready))
        .route("/info", answer(async move || Json(info.clone())))
        .fallback(async || "vectors");
    let starting = Pod { ready: false, ..pod(&name("team/minilm"), "starting", pod_with(router).await) };
    let bench = Arc::new(Bench::start().await);
    tokio::spawn(probe::run(bench.knowledge.clone(), bench.gateway.load().clone()));
    bench.add(asleep(), &[]);
    bench.knowledge.update(|directory| directory.update_pods(Update::Put(starting)));
    let held = hold(&bench, embed(BODY));
    eventually(|| bench.waiting() == 1).await;
    ready.store(true, Ordering::SeqCst);
    assert_eq!(held.await.expect("no panic").body, "vectors");
}

#[tokio::test]
async fn when_the_gateway_ends_who_waits_is_served_or_sent_elsewhere() {
    let drain = Drain { delay: Duration::ZERO, timeout: Duration::from_secs(5) };
    let bench = Arc::new(Bench::start_with(Setup { drain, ..Setup::default() }).await);
    bench.add(asleep(), &[]);
    bench.add(Service { replicas: 0, scales: true, ..service("team/e5") }, &[]);
    let served = hold(&bench, embed(BODY));
    let sent_away = hold(&bench, post("e5.team", "/v1/embeddings", BODY));
    eventually(|| bench.waiting() == 2).await;
    bench.shutdown.cancel();
    bench.add(service("team/minilm"), &[StubPod::start(1).await.address]);
    assert_eq!(served.await.expect("no panic").status, 200);
    let answer = sent_away.await.expect("no panic");
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (503, "gateway_stopping"));
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("1")));
    eventually(|| bench.server.is_finished()).await;
}

#[tokio::test]
async fn who_waits_for_pods_that_refuse_connections_is_told_so_and_answered_if_one_comes_to() {
    let bench = Bench::start().await;
    let (away, seconds) = (nobody(), Some(Duration::from_secs(1)));
    bench.add(Service { queue_timeout: seconds, ..service("team/minilm") }, &[away, nobody()]);
    let answer = bench.ask(embed(BODY)).await;
    assert_eq!(answer.status, 502);
    let words = ("pod_unreachable", "none of the service's 2 ready pods accepted a connection");
    let (code, message) = answer.error();
    assert_eq!((code.as_str(), message.as_str()), words);
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("1")));

    bench.add(service("team/other"), &[away]);
    let bench = Arc::new(bench);
    let held = hold(&bench, post("other.team", "/v1/embeddings", BODY));
    eventually(|| bench.waiting() == 1).await;
    let _pod = StubPod::at(away).await;
    assert_eq!(held.await.expect("no panic").status, 200);
}
