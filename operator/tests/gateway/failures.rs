//! What a client is told when no pod answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, routing::get as answer};
use bytes::Bytes;
use futures::{StreamExt, channel::mpsc, stream};
use http_body_util::BodyExt;
use operator::gateway::{availability::Service, directory::Update};
use tokio::time::timeout;

use crate::support::*;

#[tokio::test]
async fn a_pod_that_refuses_connections_is_passed_over() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[nobody(), telling_pod("b").await, nobody()]);
    for i in 0..6 {
        let answer = bench.ask(post("minilm.team", "/", format!("body {i}"))).await;
        let told = answer.json();
        assert_eq!(
            (told["pod"].as_str(), told["body"].as_str()),
            (Some("b"), Some(format!("body {i}").as_str()))
        );
    }
    assert!(bench.metrics().contains("kembed_gateway_connect_failures_total"), "{}", bench.metrics());
}

#[tokio::test]
async fn when_all_pods_refuse_each_was_tried_once() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[nobody(), nobody()]);
    let answer = bench.ask(get("minilm.team", "/")).await;
    assert_eq!(answer.status, 502);
    let (code, message) = answer.error();
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("pod_unreachable", "none of the service's 2 ready pods accepted a connection")
    );
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("1")));
    assert!(bench.metrics().contains("kembed_gateway_connect_failures_total 2\n"), "{}", bench.metrics());
}

/// What was sent may have been computed; and a request that kills its pod must not kill the next one as well.
#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[dying_pod().await, telling_pod("b").await]);
    let answer = bench.ask(get("minilm.team", "/")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (502, "pod_failed"));
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!(bench.ask(get("minilm.team", "/")).await.json()["pod"], "b");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let bench = Bench::start().await;
    let (sender, parts) = mpsc::unbounded::<std::io::Result<Bytes>>();
    let parts = Arc::new(Mutex::new(Some(parts)));
    let pod = async move || Body::from_stream(parts.lock().expect("no panic").take().expect("one request"));
    bench.add(service("team/minilm"), &[pod_with(Router::new().route("/", answer(pod))).await]);
    sender.unbounded_send(Ok(Bytes::from("part"))).expect("a pod");
    let mut response = bench.send(get("minilm.team", "/")).await;
    assert_eq!(response.status(), 200);
    let part = timeout(PATIENCE, response.frame()).await.expect("a part in time").expect("a part");
    assert_eq!(part.expect("no error").into_data().expect("data"), "part");
    // The first part has arrived before the failure.
    sender.unbounded_send(Err(std::io::Error::other("broken"))).expect("a pod");
    let rest = timeout(PATIENCE, response.into_body().collect()).await.expect("an end");
    assert!(rest.is_err());
}

#[tokio::test]
async fn a_pod_that_is_too_slow() {
    let bench = Bench::start().await;
    let never = Router::new().fallback(std::future::pending::<()>);
    let hasty = Service { request_timeout: Some(Duration::from_millis(50)), ..service("team/minilm") };
    bench.add(hasty, &[pod_with(never).await]);
    let answer = bench.ask(get("minilm.team", "/")).await;
    assert_eq!(answer.status, 504);
    let (code, message) = answer.error();
    assert_eq!(code, "timeout");
    assert!(message.starts_with("no answer within 50ms"), "{message}");
}

#[tokio::test]
async fn a_pod_that_does_not_finish_its_answer() {
    let bench = Bench::start().await;
    let parts = || stream::iter([Ok::<_, std::io::Error>(Bytes::from("part"))]).chain(stream::pending());
    let pod = pod_with(Router::new().fallback(async move || Body::from_stream(parts()))).await;
    // Where the machine is too slow for the head of the answer to come in that time, and to go on its way, it gets more.
    for ms in [200, 2000, 20_000] {
        let hasty = Service { request_timeout: Some(Duration::from_millis(ms)), ..service("team/minilm") };
        bench.add(hasty, &[pod]);
        let Ok(response) = bench.try_send(get("minilm.team", "/")).await else { continue };
        if response.status() == 200 {
            let read = timeout(PATIENCE, response.into_body().collect()).await.expect("an end");
            assert!(read.is_err());
            return;
        }
        assert_eq!(response.status(), 504);
    }
    panic!("no head of an answer comes");
}

#[tokio::test]
async fn an_unavailable_service_says_why() {
    let bench = Bench::start().await;
    let waiting = Service {
        ready: not_ready("Unschedulable", "no node has nvidia.com/gpu free"),
        ..service("team/minilm")
    };
    bench.add(waiting, &[]);
    let answer = bench.ask(get("minilm.team", "/")).await;
    assert_eq!(answer.status, 503);
    let (code, message) = answer.error();
    assert_eq!(code, "Unschedulable");
    assert_eq!(
        message,
        "EmbeddingService team/minilm is not ready (Unschedulable): no node has nvidia.com/gpu free"
    );
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("5")));
}

#[tokio::test]
async fn at_zero_nobody_waits() {
    let bench = Bench::start().await;
    bench.add(Service { replicas: 0, ..service("team/minilm") }, &[telling_pod("a").await]);
    let answer = bench.ask(post("x", "/v1/embeddings", r#"{"model":"team/minilm"}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (503, "Off"));
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("false"), None));
}

#[tokio::test]
async fn an_unknown_url_names_the_right_ones() {
    let bench = Bench::start().await;
    for (host, path) in
        [("minilm", "/v1/x"), ("x.team.svc", "/"), ("example.com", "/team/minil/v1/embeddings")]
    {
        let answer = bench.ask(get(host, path)).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-should-retry")), (404, Some("false")));
        let (code, message) = answer.error();
        assert_eq!(code, "unknown_url");
        assert!(message.contains("http://<name>.<namespace>.svc/v1/embeddings"), "{message}");
    }
}

#[tokio::test]
async fn two_hosts_are_refused() {
    let bench = Bench::start().await;
    let answer = bench.raw("GET / HTTP/1.1\r\nhost: a.b\r\nhost: c.d\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("two_hosts"), "{answer}");
}

#[tokio::test]
async fn a_service_that_is_deleted_is_gone() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[telling_pod("a").await]);
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 200);
    bench.knowledge.update(|directory| directory.update_services(Update::Gone(service("team/minilm"))));
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 404);
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_its_pod_is_told() {
    let bench = Bench::start().await;
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let (left, mut leaves) = tokio::sync::mpsc::unbounded_channel();
    /// Tells when the request that holds it is dropped.
    struct Told(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let held = Router::new().fallback(async move || {
        let _told = Told(left.clone());
        arrived.send(()).expect("a test that waits");
        std::future::pending::<()>().await;
    });
    bench.add(service("team/minilm"), &[pod_with(held).await]);
    {
        let asking = bench.send(get("minilm.team", "/"));
        tokio::select! {
            _ = asking => panic!("nobody answers"),
            () = async { arrivals.recv().await.expect("an arrival") } => (),
        }
    }
    timeout(PATIENCE, leaves.recv()).await.expect("the pod heard of it");
    eventually(|| bench.metrics().contains("requests_total{route=\"host\",code=\"cancelled\"} 1\n")).await;
}
