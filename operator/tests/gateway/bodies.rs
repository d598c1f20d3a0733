//! Bodies stream through in both directions.

use std::convert::Infallible;

use axum::{Router, body::Body, extract::Request as PodRequest};
use bytes::Bytes;
use futures::{StreamExt, channel::mpsc};
use http::{Request, header::HOST};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::support::*;

/// A gateway before a pod that answers with what it is sent, as it comes.
async fn echoing() -> Bench {
    let bench = Bench::start().await;
    let echo = Router::new().fallback(async |request: PodRequest| Body::new(request.into_body()));
    bench.add(service("team/echo"), &[pod_with(echo).await]);
    bench
}

#[tokio::test]
async fn each_part_arrives_before_the_next_is_sent() {
    let bench = echoing().await;
    let (sender, parts) = mpsc::unbounded::<Bytes>();
    let body = StreamBody::new(parts.map(|part| Ok::<_, Infallible>(Frame::data(part))));
    let request = Request::post("/stream").header(HOST, "echo.team").body(body).expect("a request");
    let mut response = bench.send(request).await;
    for part in ["one", "two", "three"] {
        sender.unbounded_send(Bytes::from(part)).expect("a request under way");
        let frame = tokio::time::timeout(PATIENCE, response.frame()).await.expect("the part in time");
        let data = frame.expect("not the end").expect("no error").into_data().expect("data");
        assert_eq!(data, part);
    }
    drop(sender);
    assert!(response.frame().await.is_none());
}

#[tokio::test]
async fn large_bodies_pass_whole() {
    let bench = echoing().await;
    // Larger than every buffer on the way, and than what the gateway would hold of a body that names its model.
    let large: Bytes = (0..8_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let answer = bench.ask(post("echo.team", "/stream", large.clone())).await;
    assert_eq!(answer.header("content-length"), Some("32000000"));
    assert!(answer.body == large, "{} bytes of {} came back", answer.body.len(), large.len());
    assert!(bench.ask(post("x", "/team/echo/stream", large.clone())).await.body == large);
}

#[tokio::test]
async fn an_empty_body_stays_empty() {
    let bench = echoing().await;
    assert_eq!(bench.ask(post("echo.team", "/", "")).await.body, "");
}

#[tokio::test]
async fn a_body_that_names_its_model_is_bounded() {
    let bench = echoing().await;
    let body = format!(r#"{{"model":"team/echo","input":"{}"}}"#, "x".repeat(2000));
    let answer = bench.ask(post("x", "/v1/embeddings", body.clone())).await;
    assert_eq!(answer.status, 413);
    let (code, message) = answer.error();
    assert_eq!(code, "body_too_large");
    assert!(message.contains("1024 bytes"), "{message}");
    assert_eq!(
        bench.ask(post("echo.team", "/v1/embeddings", body.clone())).await.status,
        413,
        "it could not wait"
    );
    assert_eq!(bench.ask(post("echo.team", "/tokenize", body.clone())).await.body, body);
}

#[tokio::test]
async fn a_body_that_names_no_model_is_refused() {
    let bench = echoing().await;
    for (body, status, code) in [
        ("", 400, "malformed_body"),
        (r#"{"input":"secret"}"#, 400, "malformed_body"),
        (r#"{"model":"echo"}"#, 404, "model_not_found"),
        (r#"{"model":"team/other"}"#, 404, "model_not_found"),
    ] {
        let answer = bench.ask(post("x", "/v1/embeddings", body)).await;
        let (told, message) = answer.error();
        assert_eq!((answer.status.as_u16(), told.as_str()), (status, code), "{body}");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert!(!message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    let mut setup = Setup::default();
    setup.limits.request_timeout = std::time::Duration::from_millis(50);
    let bench = Bench::start_with(setup).await;
    let (_sender, parts) = mpsc::unbounded::<Bytes>();
    let body = StreamBody::new(parts.map(|part| Ok::<_, Infallible>(Frame::data(part))));
    let answer = bench.ask(Request::post("/v1/embeddings").body(body).expect("a request")).await;
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (408, "slow_body"));
}
