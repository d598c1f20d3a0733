//! Refusals that no other test hears over a socket: each with its code, and whether and when to come again.

use http::{Method, Request, header::HOST};
use http_body_util::Full;
use operator::gateway::availability::Service;
use tokio::task::JoinSet;

use crate::{stub::*, support::*};

/// Status, code, `x-should-retry` and `Retry-After`.
fn told(answer: &Answer) -> (u16, String, Option<&str>, Option<&str>) {
    let (again, after) = (answer.header("x-should-retry"), answer.header("retry-after"));
    (answer.status.as_u16(), answer.error().0, again, after)
}

fn within(ms: u64) -> Request<Full<bytes::Bytes>> {
    let request = Request::post("/embed").header(HOST, "minilm.team").header("x-kembed-deadline-ms", ms);
    request.body(Full::from("\"x\"")).expect("a request")
}

#[tokio::test]
async fn the_gateways_own_paths_have_their_methods() {
    let bench = Bench::start().await;
    for (method, path, allowed) in
        [(Method::DELETE, "/v1/models", "GET, HEAD"), (Method::GET, "/v1/embeddings", "POST")]
    {
        let mut request = get("gateway", path);
        *request.method_mut() = method;
        let answer = bench.ask(request).await;
        assert_eq!(told(&answer), (405, "method_not_allowed".to_owned(), Some("false"), None));
        assert_eq!(answer.header("allow"), Some(allowed));
    }
}

#[tokio::test]
async fn a_deadline_that_passes_while_it_waits() {
    let bench = Bench::start().await;
    bench.add(Service { replicas: 0, scales: true, ..service("team/minilm") }, &[]);
    let answer = bench.ask(within(50)).await;
    assert_eq!(told(&answer), (504, "deadline_passed".to_owned(), Some("false"), None));
}

/// The pod takes seconds over each.
#[tokio::test]
async fn a_deadline_that_would_pass_before_it_is_done() {
    let pod = StubPod::with(Some(load(1, 1)), 1).await;
    let bench = std::sync::Arc::new(Bench::start().await);
    bench.add(service("team/minilm"), &[pod.address]);
    assert_eq!(bench.ask(post("minilm.team", "/embed", "\"x\"")).await.status, 200, "its speed is known now");
    let mut held = JoinSet::new();
    for _ in 0..2 {
        let bench = bench.clone();
        held.spawn(async move { bench.ask(post("minilm.team", "/embed", "\"x\"")).await });
    }
    eventually(|| pod.in_hand() == 1 && bench.waiting() == 1).await;
    let answer = bench.ask(within(1000)).await;
    let (status, code, again, after) = told(&answer);
    assert_eq!((status, code.as_str(), again), (429, "deadline_too_soon", Some("true")));
    let after: u64 = after.and_then(|after| after.parse().ok()).expect("seconds");
    assert!((1..=3).contains(&after), "{after}");
    pod.open();
    assert!(held.join_all().await.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_body_that_is_no_body() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[telling_pod("a").await]);
    let head = "POST /embed HTTP/1.1\r\nhost: minilm.team\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = bench.raw(&format!("{head}3\r\nabc\r\nno number\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"code\":\"broken_body\""), "{answer}");
    assert!(answer.contains("x-should-retry: false"), "{answer}");
}
