//! A request comes to its service by each of the routes.

use http::{Method, Request, Version, header::HOST};
use http_body_util::Full;
use serde_json::json;

use crate::support::*;

/// A gateway before `team/minilm` and `team/e5`.
async fn bench() -> Bench {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[telling_pod("minilm").await]);
    bench.add(service("team/e5"), &[telling_pod("e5").await]);
    bench
}

#[tokio::test]
async fn by_host_everything_passes_through() {
    let bench = bench().await;
    let request = Request::post("/v1/embeddings?a=1&b=%20")
        .header(HOST, "minilm.team.svc.cluster.local")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("authorization", "Bearer key")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        // On this route the model is the pod's matter.
        .body(Full::from(r#"{"model":"team/e5","input":"x"}"#))
        .expect("a request");
    let answer = bench.ask(request).await;
    assert_eq!(answer.status, 200);
    let told = answer.json();
    assert_eq!(told["pod"], "minilm");
    assert_eq!(told["method"], "POST");
    assert_eq!(told["target"], "/v1/embeddings?a=1&b=%20");
    assert_eq!(told["body"], r#"{"model":"team/e5","input":"x"}"#);
    assert_eq!(told["headers"]["host"], "minilm.team.svc.cluster.local");
    assert_eq!(told["headers"]["authorization"], "Bearer key");
    assert_eq!(told["headers"]["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(told["headers"]["content-length"], "31");
    assert!(told["headers"].get("x-hop").is_none());
}

#[tokio::test]
async fn by_path_under_any_host() {
    let bench = bench().await;
    let told = bench.ask(get("api.example.com", "/team/e5/?content=a+b")).await.json();
    assert_eq!((&told["pod"], &told["target"]), (&json!("e5"), &json!("/?content=a+b")));
    assert_eq!(told["headers"]["host"], "api.example.com");
    let told = bench.ask(post("x", "/team/e5/v1/embeddings", r#"{"model":"team/minilm"}"#)).await.json();
    assert_eq!((&told["pod"], &told["target"]), (&json!("e5"), &json!("/v1/embeddings")));
}

#[tokio::test]
async fn by_model_the_body_arrives_unchanged() {
    let bench = bench().await;
    let body = r#"{"input": ["é", "b"],  "model": "team/e5"}"#;
    let told = bench.ask(post("gateway.kembed.svc", "/v1/embeddings?x=1", body)).await.json();
    assert_eq!((&told["pod"], &told["target"]), (&json!("e5"), &json!("/v1/embeddings?x=1")));
    assert_eq!(told["body"], body);
    assert_eq!(told["headers"]["content-length"], body.len().to_string());
}

#[tokio::test]
async fn all_methods_pass() {
    let bench = bench().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let mut request = get("minilm.team", "/x");
        *request.method_mut() = method.clone();
        assert_eq!(bench.ask(request).await.json()["method"], method.as_str());
    }
    let mut head = get("minilm.team", "/x");
    *head.method_mut() = Method::HEAD;
    let answer = bench.ask(head).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
}

#[tokio::test]
async fn over_http2_the_authority_is_the_host() {
    let bench = bench().await;
    let mut connection = http2(bench.address).await;
    let mut request = Request::new(Full::from("x"));
    *request.uri_mut() = "http://minilm.team.svc/v1/x?y".parse().expect("a URL");
    *request.method_mut() = Method::POST;
    let response = connection.send_request(request).await.expect("an answer");
    assert_eq!(response.version(), Version::HTTP_2);
    let told = read(response).await.json();
    assert_eq!((&told["pod"], &told["target"]), (&json!("minilm"), &json!("/v1/x?y")));
    assert_eq!((&told["headers"]["host"], &told["version"]), (&json!("minilm.team.svc"), &json!("HTTP/1.1")));
}

#[tokio::test]
async fn the_host_of_the_request_line_wins() {
    let bench = bench().await;
    let answer =
        bench.raw("GET http://e5.team/x HTTP/1.1\r\nhost: minilm.team\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains(r#""pod":"e5""#) && answer.contains(r#""host":"e5.team""#), "{answer}");
}

#[tokio::test]
async fn the_list_of_services() {
    let bench = bench().await;
    let answer = bench.ask(get("gateway.kembed.svc", "/v1/models")).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let list = answer.json();
    assert_eq!((&list["data"][0]["id"], &list["data"][1]["id"]), (&json!("team/e5"), &json!("team/minilm")));
    assert_eq!(list["data"][0]["created"], 60);
    assert_eq!(bench.ask(get("minilm.team", "/v1/models")).await.json()["pod"], "minilm");
}

#[tokio::test]
async fn requests_take_turns() {
    let bench = Bench::start().await;
    bench.add(service("team/minilm"), &[telling_pod("a").await, telling_pod("b").await]);
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(bench.ask(get("minilm.team", "/")).await.json()["pod"].clone());
    }
    assert_eq!(told, ["a", "b", "a", "b"]);
}

#[tokio::test]
async fn what_was_routed_how_is_counted() {
    let bench = bench().await;
    bench.ask(get("minilm.team", "/")).await;
    bench.ask(get("x", "/team/minilm/")).await;
    bench.ask(post("x", "/v1/embeddings", r#"{"model":"team/e5"}"#)).await;
    bench.ask(get("x", "/v1/models")).await;
    bench.ask(get("x", "/nothing")).await;
    for line in [
        r#"requests_total{route="host",code="2xx"} 1"#,
        r#"requests_total{route="path",code="2xx"} 1"#,
        r#"requests_total{route="model",code="2xx"} 1"#,
        r#"requests_total{route="models",code="2xx"} 1"#,
        r#"requests_total{route="none",code="4xx"} 1"#,
        r#"refusals_total{reason="unknown_url"} 1"#,
        "requests_in_flight 0",
        "upstream_seconds_count 3",
    ] {
        eventually(|| bench.metrics().contains(&format!("kembed_gateway_{line}\n"))).await;
    }
}
