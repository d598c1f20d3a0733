//! What clients get, with a stub in place of a network.

mod support;

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use inference_pod::{
    api,
    batch::{Ended, SubmitError},
    engine::{EmbedError, Input, Request as EmbedRequest, Terms},
    limits::Limits,
    pod::{Identity, Pod, Stage},
};
use kembed_queue::{
    Budget,
    credit::{GRANTED_HEADER, NO_CREDIT_HEADER, POD_LOAD_HEADER, PodLoad},
    wire::{DEADLINE_HEADER, LANE_HEADER, Lane, NOT_READY_HEADER},
};
use serde_json::{Value, json};
use support::{Answer, Order, Tested, answering, embed, get, identity, limits, send, waiting};
use tower::ServiceExt;

/// The vectors in an answer of OpenAI's form.
fn vectors(answer: &support::Answer) -> Vec<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let json = answer.json();
    let data = json["data"].as_array().expect("a list");
    for (i, item) in data.iter().enumerate() {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(i)));
    }
    data.iter().map(|item| item["embedding"].clone()).collect()
}

#[track_caller]
fn assert_refused(answer: &support::Answer, status: u16, code: &str, retry: bool) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(error["type"].is_string() && error.get("param").is_some(), "{error}");
    assert_eq!(answer.header("x-should-retry"), Some(if retry { "true" } else { "false" }));
    assert_eq!(answer.header("retry-after").is_some(), retry && matches!(status, 429 | 503));
    assert_eq!(answer.header(NOT_READY_HEADER).is_some(), matches!(code, "not_ready" | "stopping"));
}

#[tokio::test]
async fn every_form_of_input_is_embedded_in_order() {
    let pod = answering(limits(), identity());
    // `[CLS]` is 1, `[SEP]` is 2, `a` is 4, and so on.
    for (input, expected) in [
        (json!("a b"), json!([[4.0, 12.0, 0.0]])),
        (json!(["a", "b b b"]), json!([[3.0, 7.0, 0.0], [5.0, 18.0, 0.0]])),
        (json!([4, 5]), json!([[2.0, 9.0, 0.0]])),
        (json!([[4], [5, 6]]), json!([[1.0, 4.0, 0.0], [2.0, 11.0, 0.0]])),
        (json!("\0"), json!([[3.0, 6.0, 0.0]])),
        (json!("  "), json!([[2.0, 3.0, 0.0]])),
    ] {
        let answer = embed(&pod, json!({"input": input, "model": "any"}).to_string()).await;
        assert_eq!(json!(vectors(&answer)), expected, "{input}");
        assert_eq!(answer.header("x-kembed-space"), Some(support::DIGEST));
    }
}

#[tokio::test]
async fn usage_counts_tokens_and_the_model_is_named() {
    let pod = answering(limits(), identity());
    let json = embed(&pod, r#"{"input": ["a", "b b"]}"#).await.json();
    assert_eq!(json["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
    assert_eq!((&json["object"], &json["model"]), (&json!("list"), &json!("b")));
    let models = get(&pod, "/v1/models").await.json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("b")));
}

#[tokio::test]
async fn options_change_the_vector() {
    let pod = answering(limits(), identity());
    let cut = embed(&pod, r#"{"input": "a", "dimensions": 2}"#).await;
    assert_eq!(vectors(&cut), [json!([3.0, 7.0])]);
    for prompted in [r#""input_type": "query""#, r#""prompt_name": "query""#] {
        let prompted = embed(&pod, format!(r#"{{"input": "a", {prompted}}}"#)).await;
        assert_eq!(vectors(&prompted), [json!([4.0, 18.0, 0.0])]);
    }
    let normalized = embed(&pod, r#"{"input": [5, 7], "normalize": true, "dimensions": 1}"#).await;
    assert_eq!(vectors(&normalized), [json!([1.0])]);
    let encoded = embed(&pod, r#"{"input": "a", "encoding_format": "base64"}"#).await;
    let text = vectors(&encoded)[0].as_str().expect("base 64").to_owned();
    let bytes: Vec<u8> = [3f32, 7., 0.].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(BASE64_STANDARD.decode(text).expect("base 64"), bytes);
}

#[tokio::test]
async fn plain_gets_give_a_vector() {
    let pod = answering(limits(), identity());
    for path in ["/?content=a%20b", "/get_vector_simple?sentence=a+b", "/get_vector_async?sentence=a+b"] {
        let answer = get(&pod, path).await;
        assert_eq!(answer.json(), json!({"vector": [4.0, 12.0, 0.0]}), "{path}");
        assert_eq!(answer.header("x-kembed-space"), Some(support::DIGEST));
    }
    for path in ["/", "/?content=", "/?content=%ff", "/get_vector_simple?content=a"] {
        assert_refused(&get(&pod, path).await, 400, "invalid_request", false);
    }
}

#[tokio::test]
async fn a_page_of_any_origin_may_ask_the_plain_way_and_no_other() {
    let pod = answering(limits(), identity());
    let from_page = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("origin", "https://example.org");
        request.header("access-control-request-method", "GET").body(Body::empty()).expect("a good request")
    };
    for path in ["/?content=a", "/get_vector_simple?sentence=a", "/get_vector_async?sentence=a"] {
        let asked = send(&pod, from_page("OPTIONS", path)).await;
        assert_eq!(asked.status, StatusCode::OK, "{path}");
        assert_eq!(asked.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(asked.header("access-control-allow-methods"), Some("GET"), "{path}");
        let answer = send(&pod, from_page("GET", path)).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            Some("x-kembed-space,retry-after"),
            "{path}"
        );
    }
    // A page is to read why it is refused, too.
    let refused = send(&pod, from_page("GET", "/get_vector_async")).await;
    assert_refused(&refused, 400, "invalid_request", false);
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    for path in ["/v1/embeddings", "/info", "/metrics", "/embed"] {
        let asked = send(&pod, from_page("OPTIONS", path)).await;
        assert_refused(&asked, 405, "method_not_allowed", false);
        assert_eq!(asked.header("access-control-allow-origin"), None, "{path}");
    }
}

#[tokio::test]
async fn requests_at_fault_are_refused() {
    let pod = answering(limits(), identity());
    for body in [
        r#"{"input": ""}"#,
        r#"{"input": []}"#,
        r#"{"input": ["a", ""]}"#,
        r#"{"input": [[4], []]}"#,
        r#"{"input": [12]}"#,
        r#"{"input": ["a", "a", "a", "a", "a", "a"]}"#,
        r#"{"input": "a", "dimensions": 0}"#,
        r#"{"input": "a", "dimensions": 4}"#,
        r#"{"input": "\ud800"}"#,
        r#"{"input": {"a": 1}}"#,
        "[]",
        "",
    ] {
        assert_refused(&embed(&pod, body).await, 400, "invalid_request", false);
    }
}

#[tokio::test]
async fn a_refusal_names_the_field_at_fault() {
    let pod = answering(limits(), identity());
    let long = "a ".repeat(15);
    for (body, param, code) in [
        (json!({"input": ""}), json!("input"), "invalid_request"),
        (json!({"input": "a", "dimensions": 9}), json!("dimensions"), "invalid_request"),
        (json!({"input": "a", "encoding_format": "x"}), json!("encoding_format"), "invalid_request"),
        (json!({"input": "a", "prompt_name": "x"}), json!("prompt_name"), "invalid_request"),
        (json!({"input": vec![4; 17]}), json!("input"), "context_length_exceeded"),
        (json!({"input": long, "truncate": false}), json!("input"), "context_length_exceeded"),
        (json!([]), json!(null), "invalid_request"),
    ] {
        let answer = embed(&pod, body.to_string()).await;
        assert_refused(&answer, 400, code, false);
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_repeat_a_long_input() {
    let pod = answering(Limits { body: 100_000, ..limits() }, identity());
    let body = json!({"input": "a", "encoding_format": "x".repeat(50_000)}).to_string();
    let answer = embed(&pod, body).await;
    assert_refused(&answer, 400, "invalid_request", false);
    assert!(answer.text.len() < 1000, "{}", answer.text.len());
}

#[tokio::test]
async fn what_is_too_large_is_refused_for_good() {
    let pod = answering(limits(), identity());
    let body = json!({"input": "a".repeat(1000)}).to_string();
    assert_refused(&embed(&pod, body).await, 413, "request_too_large", false);
    // Four inputs of 16 tokens are more than the 40 that ever wait.
    let texts = ["a ", "b ", "c ", "d "].map(|word| word.repeat(16));
    let refused = embed(&pod, json!({"input": texts}).to_string()).await;
    assert_refused(&refused, 413, "request_too_large", false);
    assert!(refused.text.contains("4 inputs, 40 tokens"), "{}", refused.text);
}

#[tokio::test]
async fn ten_megabytes_of_one_character_are_refused_with_the_limit_in_words() {
    let pod = answering(Limits::new(1), identity());
    let long = "x".repeat(10 << 20);
    let refused = embed(&pod, json!({"input": long}).to_string()).await;
    assert_refused(&refused, 413, "request_too_large", false);
    assert!(refused.text.contains("4194304 bytes"), "{}", refused.text);
    let request = Request::post("/embed").body(Body::from(json!({"inputs": long}).to_string()));
    let refused = send(&pod, request.expect("a good request")).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn one_word_of_many_characters_is_cut_and_answered() {
    let pod = answering(Limits { body: 2 << 20, ..limits() }, identity());
    let answer = embed(&pod, json!({"input": "x".repeat(1 << 20)}).to_string()).await;
    assert_eq!(vectors(&answer), [json!([3.0, 6.0, 0.0])]);
    let answer = embed(&pod, json!({"input": "a ".repeat(1 << 19)}).to_string()).await;
    assert_eq!(vectors(&answer)[0][0], 16.0);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_in_the_same_form() {
    let pod = answering(limits(), identity());
    assert_refused(&get(&pod, "/v2/embeddings").await, 404, "not_found", false);
    assert_refused(&get(&pod, "/v1/embeddings").await, 405, "method_not_allowed", false);
    let post = Request::post("/v1/models").body(Body::empty()).expect("a good request");
    assert_refused(&send(&pod, post).await, 405, "method_not_allowed", false);
}

#[tokio::test]
async fn before_the_model_is_there_the_pod_lives_and_says_what_it_waits_for() {
    let pod = Arc::new(Pod::new(identity(), limits()));
    assert_eq!(get(&pod, "/health/live").await.status, StatusCode::OK);
    pod.progress.begin("model.safetensors", 0, 90_000_000);
    let ready = get(&pod, "/health/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text.starts_with("fetching model.safetensors: 0 %"), "{}", ready.text);
    pod.enter(Stage::Warming);
    assert_eq!(get(&pod, "/health/ready").await.text, "warming up\n");
    assert_refused(&embed(&pod, r#"{"input": "a"}"#).await, 503, "not_ready", true);
    assert_refused(&get(&pod, "/?content=a").await, 503, "not_ready", true);
    assert_refused(&get(&pod, "/info").await, 503, "not_ready", true);
}

#[tokio::test]
async fn a_stopping_pod_is_unready_and_still_answers() {
    let pod = answering(limits(), identity());
    assert_eq!(get(&pod, "/health/ready").await.status, StatusCode::OK);
    pod.enter(Stage::Stopping);
    pod.enter(Stage::Serving);
    assert_eq!(get(&pod, "/health/ready").await.text, "stopping\n");
    assert_eq!(embed(&pod, r#"{"input": "a"}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn info_tells_model_and_space() {
    let pod = answering(limits(), identity());
    let info = get(&pod, "/info").await.json();
    let space = json!({"digest": support::DIGEST, "revision": "abc", "dimension": 3, "maxTokens": 16});
    assert_eq!(info["space"], space);
    assert_eq!((&info["model_id"], &info["model_sha"]), (&json!("hf://a/b"), &json!("abc")));
    assert_eq!(info["max_input_length"], 16);
}

#[tokio::test]
async fn another_space_is_not_served_and_still_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("space.json");
    let pod = answering(limits(), Identity { recorded: Some(file.clone()), ..identity() });
    assert_eq!(get(&pod, "/health/ready").await.status, StatusCode::OK);

    std::fs::write(&file, r#"{"digest": "sha256:other", "revision": "def"}"#).expect("it can be written");
    let ready = get(&pod, "/health/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    for word in [support::DIGEST, "sha256:other", "abc", "def"] {
        assert!(ready.text.contains(word), "{}", ready.text);
    }
    assert_refused(&embed(&pod, r#"{"input": "a"}"#).await, 503, "not_ready", true);
    assert_eq!(get(&pod, "/health/live").await.status, StatusCode::OK);
    assert_eq!(get(&pod, "/info").await.json()["space"]["digest"], support::DIGEST);

    std::fs::write(&file, "{").expect("it can be written");
    assert!(get(&pod, "/health/ready").await.text.contains("damaged"));

    let right = format!(r#"{{"digest": "{}"}}"#, support::DIGEST);
    std::fs::write(&file, right).expect("it can be written");
    assert_eq!(get(&pod, "/health/ready").await.status, StatusCode::OK);
    assert_eq!(embed(&pod, r#"{"input": "a"}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_pinned_digest_is_demanded_from_the_start() {
    let pod = answering(limits(), Identity { pinned: Some("sha256:pinned".into()), ..identity() });
    assert_refused(&embed(&pod, r#"{"input": "a"}"#).await, 503, "not_ready", true);
    assert!(get(&pod, "/health/ready").await.text.contains("sha256:pinned"));
}

/// Sends a request whose batch the stub starts and holds.
async fn hold(tested: &mut Tested) -> tokio::task::JoinHandle<support::Answer> {
    let pod = tested.pod.clone();
    let held = tokio::spawn(async move { embed(&pod, r#"{"input": "a"}"#).await });
    started(tested).await;
    held
}

async fn started(tested: &mut Tested) -> usize {
    loop {
        match tested.started.try_recv() {
            Ok(rows) => return rows,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn waits(pod: &Pod, inputs: i64) {
    let gauges = [Lane::Interactive, Lane::Bulk].map(|lane| pod.metrics.queue_inputs.of(lane));
    let waiting = || gauges.iter().map(|gauge| gauge.get()).sum::<i64>();
    while waiting() != inputs {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_queue_says_to_come_again_and_takes_what_fits() {
    let mut tested = waiting(limits(), identity());
    let first = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let queued = tokio::spawn(async move { embed(&pod, r#"{"input": ["b", "c", "d"]}"#).await });
    waits(&tested.pod, 3).await;
    let refused = embed(&tested.pod, r#"{"input": ["e", "f"]}"#).await;
    assert_refused(&refused, 429, "queue_full", true);
    assert_eq!(refused.header("retry-after"), Some("1"), "nothing is known of the pod's speed yet");
    for _ in 0..2 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    assert_eq!(first.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(vectors(&queued.await.expect("no panic")).len(), 3);
    assert_eq!(started(&mut tested).await, 3, "what waited runs in one batch");
}

#[tokio::test]
async fn a_gateway_that_keeps_count_is_told_the_load() {
    let batch = Budget { tokens: 1, rows: 4 };
    let mut tested = waiting(Limits { batch, ..limits() }, identity());
    let granted = (GRANTED_HEADER, "true");
    // An input has three tokens, the pod's credit is four batches, and twice that is taken.
    let first = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let queued = tokio::spawn(async move {
        let pod = pod;
        embed_with(&pod, (GRANTED_HEADER, "true"), r#"{"input": ["b", "c", "d"]}"#).await
    });
    waits(&tested.pod, 3).await;
    let refused = embed_with(&tested.pod, granted, r#"{"input": "e"}"#).await;
    assert_refused(&refused, 503, "no_credit", true);
    assert_eq!(refused.header(NO_CREDIT_HEADER), Some("true"));
    let load = |answer: &Answer| answer.header(POD_LOAD_HEADER).and_then(PodLoad::parse).expect("it is told");
    assert_eq!(load(&refused), PodLoad { credit: 4, work: 0, rate: 0, sessions: 1 });
    // The other lane has credit of its own.
    let bulk = Request::post("/v1/embeddings").header(LANE_HEADER, "bulk").header(granted.0, granted.1);
    let pod = tested.pod.clone();
    let bulk = tokio::spawn(async move {
        send(&pod, bulk.body(Body::from(r#"{"input": "f"}"#)).expect("a good request")).await
    });
    waits(&tested.pod, 4).await;
    for _ in 0..5 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    assert_eq!(bulk.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(first.await.expect("no panic").header(POD_LOAD_HEADER), None, "nobody keeps count");
    let queued = queued.await.expect("no panic");
    assert_eq!((load(&queued).credit, load(&queued).work), (4, 9));
    assert!(load(&queued).rate > 0, "a batch was measured");
    let timing = queued.header("server-timing").expect("times");
    for stage in ["tokenize;dur=", "queue;dur=", "run;dur="] {
        assert!(timing.contains(stage), "{timing}");
    }
}

#[tokio::test]
async fn more_requests_than_the_pod_takes_on_are_told_so() {
    let mut tested = waiting(Limits { requests: 1, ..limits() }, identity());
    let first = hold(&mut tested).await;
    assert_refused(&embed(&tested.pod, r#"{"input": "a"}"#).await, 429, "queue_full", true);
    tested.orders.send(Order::Answer).expect("the stub waits");
    assert_eq!(first.await.expect("no panic").status, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_is_in_hand_until_it_is_read() {
    let pod = answering(Limits { requests: 1, ..limits() }, identity());
    let request =
        Request::post("/v1/embeddings").body(Body::from(r#"{"input": "a"}"#)).expect("a good request");
    let unread = api::router(pod.clone()).oneshot(request).await.expect("the router never fails");
    assert_refused(&embed(&pod, r#"{"input": "a"}"#).await, 429, "queue_full", true);
    drop(unread);
    assert_eq!(embed(&pod, r#"{"input": "a"}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn more_bytes_than_the_pod_takes_on_are_told_so() {
    let pod = answering(Limits { bytes: 1024, ..limits() }, identity());
    assert_refused(&embed(&pod, r#"{"input": "a"}"#).await, 429, "queue_full", true);
    let pod = answering(Limits { bytes: 2048, ..limits() }, identity());
    assert_eq!(embed(&pod, r#"{"input": "a"}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_a_client_left_behind_is_not_run_and_makes_room() {
    let mut tested = waiting(limits(), identity());
    let first = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let left = tokio::spawn(async move { embed(&pod, r#"{"input": ["b", "c", "d", "e"]}"#).await });
    waits(&tested.pod, 4).await;
    left.abort();
    assert!(left.await.is_err_and(|e| e.is_cancelled()));
    let pod = tested.pod.clone();
    let second = tokio::spawn(async move { embed(&pod, r#"{"input": ["f", "g"]}"#).await });
    waits(&tested.pod, 2).await;
    for _ in 0..2 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    assert_eq!(first.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(vectors(&second.await.expect("no panic")).len(), 2);
    assert_eq!(started(&mut tested).await, 2, "only what is still wanted runs");
}

#[tokio::test]
async fn what_is_in_hand_already_is_not_run_again() {
    let mut tested = waiting(limits(), identity());
    let running = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let second = tokio::spawn(async move { embed(&pod, r#"{"input": ["b", "a", "b", "b"]}"#).await });
    waits(&tested.pod, 1).await;
    for _ in 0..2 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    // "a" ran already when it was asked for again.
    let (a, b) = (json!([3., 7., 0.]), json!([3., 8., 0.]));
    assert_eq!(vectors(&running.await.expect("no panic")), std::slice::from_ref(&a));
    assert_eq!(vectors(&second.await.expect("no panic")), [b.clone(), a, b.clone(), b]);
    assert_eq!(started(&mut tested).await, 1, "of four inputs one was new");
}

#[tokio::test]
async fn an_input_that_two_wait_for_is_run_though_one_of_them_left() {
    let mut tested = waiting(limits(), identity());
    let first = hold(&mut tested).await;
    let ask = |pod: Arc<Pod>| tokio::spawn(async move { embed(&pod, r#"{"input": ["b"]}"#).await });
    let left = ask(tested.pod.clone());
    waits(&tested.pod, 1).await;
    let stays = ask(tested.pod.clone());
    // The second one joins without a trace in the queue, as soon as its tokens are there.
    while tested.pod.metrics.joined.get() == 0 {
        tokio::task::yield_now().await;
    }
    left.abort();
    assert!(left.await.is_err_and(|e| e.is_cancelled()));
    for _ in 0..2 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    assert_eq!(first.await.expect("no panic").status, StatusCode::OK);
    assert_eq!(vectors(&stays.await.expect("no panic")).len(), 1);
}

/// A request with a header of kembed's.
async fn embed_with(pod: &Arc<Pod>, header: (&str, &str), body: &'static str) -> support::Answer {
    let request = Request::post("/v1/embeddings").header(header.0, header.1);
    support::send(pod, request.body(Body::from(body)).expect("a good request")).await
}

#[tokio::test]
async fn bulk_waits_for_those_who_came_later() {
    let mut tested = waiting(limits(), identity());
    let first = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let bulk =
        tokio::spawn(async move { embed_with(&pod, (LANE_HEADER, "bulk"), r#"{"input": ["b b"]}"#).await });
    waits(&tested.pod, 1).await;
    let pod = tested.pod.clone();
    let interactive = tokio::spawn(async move { embed(&pod, r#"{"input": ["c", "d"]}"#).await });
    waits(&tested.pod, 3).await;
    for rows in [2, 1] {
        tested.orders.send(Order::Answer).expect("the stub waits");
        assert_eq!(started(&mut tested).await, rows, "interactive has two inputs and bulk has one");
    }
    tested.orders.send(Order::Answer).expect("the stub waits");
    for answer in [first, interactive, bulk] {
        assert_eq!(answer.await.expect("no panic").status, StatusCode::OK);
    }
    let refused = embed_with(&tested.pod, (LANE_HEADER, "fast"), r#"{"input": "a"}"#).await;
    assert_refused(&refused, 400, "invalid_request", false);
}

/// Once, it waited for the turn of the bulk request that has the same text.
#[tokio::test]
async fn what_bulk_has_queued_is_run_earlier_for_who_waits() {
    let mut tested = waiting(limits(), identity());
    let first = hold(&mut tested).await;
    let ask = |lane: &'static str, body: &'static str| {
        let pod = tested.pod.clone();
        tokio::spawn(async move { embed_with(&pod, (LANE_HEADER, lane), body).await })
    };
    let bulk = ask("bulk", r#"{"input": ["b b"]}"#);
    waits(&tested.pod, 1).await;
    let same = ask("interactive", r#"{"input": ["b b"]}"#);
    waits(&tested.pod, 2).await;
    let other = ask("interactive", r#"{"input": ["c"]}"#);
    waits(&tested.pod, 3).await;
    for rows in [2, 1] {
        tested.orders.send(Order::Answer).expect("the stub waits");
        assert_eq!(started(&mut tested).await, rows, "bulk of the same length fills the first batch");
    }
    tested.orders.send(Order::Answer).expect("the stub waits");
    for answer in [first, bulk, same, other] {
        assert_eq!(answer.await.expect("no panic").status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_says_how_long_it_waits() {
    let mut tested = waiting(limits(), identity());
    let held = hold(&mut tested).await;
    let start = tokio::time::Instant::now();
    let late = embed_with(&tested.pod, (DEADLINE_HEADER, "250"), r#"{"input": "b"}"#).await;
    assert_refused(&late, 504, "timeout", true);
    assert_eq!(start.elapsed(), std::time::Duration::from_millis(250));
    tokio::time::resume();
    for _ in 0..2 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    assert_eq!(held.await.expect("no panic").status, StatusCode::OK);
    let next = embed(&tested.pod, r#"{"input": ["c", "d"]}"#).await;
    assert_eq!(next.status, StatusCode::OK);
    assert_eq!(started(&mut tested).await, 2, "what came too late was not run");
    let refused = embed_with(&tested.pod, (DEADLINE_HEADER, "soon"), r#"{"input": "a"}"#).await;
    assert_refused(&refused, 400, "invalid_request", false);
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_when_its_time_is_over() {
    let mut tested = waiting(limits(), identity());
    let held = hold(&mut tested).await;
    assert_refused(&held.await.expect("no panic"), 504, "timeout", true);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_with_its_time() {
    let pod = answering(limits(), identity());
    let silent = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_refused(&embed(&pod, silent).await, 504, "timeout", true);
}

#[tokio::test]
async fn a_failed_batch_is_told_and_the_next_one_runs() {
    let mut tested = waiting(limits(), identity());
    let failed = hold(&mut tested).await;
    tested.orders.send(Order::Fail).expect("the stub waits");
    assert_refused(&failed.await.expect("no panic"), 500, "network_failed", true);
    let next = hold(&mut tested).await;
    tested.orders.send(Order::Answer).expect("the stub waits");
    assert_eq!(next.await.expect("no panic").status, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_of_the_network_ends_its_thread_and_is_told() {
    let mut tested = waiting(limits(), identity());
    let lost = hold(&mut tested).await;
    tested.orders.send(Order::Panic).expect("the stub waits");
    assert_refused(&lost.await.expect("no panic"), 503, "stopping", true);
    assert_eq!(tested.ended.await, Ok(Ended::Panicked));
    assert_refused(&embed(&tested.pod, r#"{"input": "a"}"#).await, 503, "stopping", true);
}

#[tokio::test]
async fn a_lost_device_ends_the_thread_and_clients_are_sent_elsewhere() {
    let mut tested = waiting(limits(), identity());
    let lost = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let waiting = tokio::spawn(async move { embed(&pod, r#"{"input": "b c"}"#).await });
    while tested.pod.metrics.queue_inputs.of(Lane::Interactive).get() == 0 {
        tokio::task::yield_now().await;
    }
    tested.orders.send(Order::Lose).expect("the stub waits");
    assert_refused(&lost.await.expect("no panic"), 503, "stopping", true);
    assert_refused(&waiting.await.expect("no panic"), 503, "stopping", true);
    assert_eq!(tested.ended.await, Ok(Ended::Lost("gone".into())));
    assert_refused(&embed(&tested.pod, r#"{"input": "a"}"#).await, 503, "stopping", true);
}

#[tokio::test]
async fn a_batch_that_finds_no_memory_runs_in_halves_and_later_ones_are_smaller() {
    let tested = waiting(limits(), identity());
    let ask = |texts: &'static str| {
        let pod = tested.pod.clone();
        tokio::spawn(async move { embed(&pod, format!(r#"{{"input": {texts}}}"#)).await })
    };
    let whole = ask(r#"["a", "b", "c", "d"]"#);
    for order in [Order::FindNoMemory, Order::Answer, Order::Answer] {
        tested.orders.send(order).expect("the stub waits");
    }
    let answer = whole.await.expect("no panic");
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let sums: Vec<_> = (0..4).map(|i| answer.json()["data"][i]["embedding"][1].clone()).collect();
    assert_eq!(sums, [7., 8., 9., 10.], "each has its own");
    // Twelve tokens were too many, so that six are allowed.
    let whole = ask(r#"["e", "f", "g", "a a"]"#);
    for _ in 0..3 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    assert_eq!(whole.await.expect("no panic").status, StatusCode::OK);
    let rows: Vec<_> = tested.started.try_iter().collect();
    assert_eq!(rows, [4, 2, 2, 2, 1, 1]);
}

#[tokio::test]
async fn an_input_that_never_finds_memory_fails_alone() {
    let tested = waiting(limits(), identity());
    let pods = [tested.pod.clone(), tested.pod.clone()];
    for order in [Order::FindNoMemory, Order::FindNoMemory, Order::Answer] {
        tested.orders.send(order).expect("the stub waits");
    }
    // Two inputs, of which the first fails even alone: the request fails, and the pod goes on.
    assert_refused(&embed(&pods[0], r#"{"input": ["a", "b"]}"#).await, 500, "network_failed", true);
    tested.orders.send(Order::Answer).expect("the stub waits");
    assert_eq!(embed(&pods[1], r#"{"input": "a"}"#).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_thread_ends_with_its_pod() {
    let Tested { pod, orders, ended, started } = waiting(limits(), identity());
    drop((pod, orders, started));
    assert_eq!(ended.await, Ok(Ended::Done));
}

#[tokio::test]
async fn health_does_not_wait_for_work() {
    let mut tested = waiting(limits(), identity());
    let held = hold(&mut tested).await;
    for path in ["/health/live", "/health/ready", "/info", "/v1/models", "/metrics"] {
        assert_eq!(get(&tested.pod, path).await.status, StatusCode::OK, "{path}");
    }
    tested.orders.send(Order::Answer).expect("the stub waits");
    assert_eq!(held.await.expect("no panic").status, StatusCode::OK);
}

#[tokio::test]
async fn answers_are_counted_by_class() {
    let pod = answering(limits(), identity());
    embed(&pod, r#"{"input": "a"}"#).await;
    embed(&pod, r#"{"input": ""}"#).await;
    get(&pod, "/health/ready").await;
    let metrics = get(&pod, "/metrics").await.text;
    assert!(metrics.contains("kembed_requests_total{code=\"2xx\"} 1\n"), "{metrics}");
    assert!(metrics.contains("kembed_requests_total{code=\"4xx\"} 1\n"), "{metrics}");
    for name in [
        "kembed_refusals_total{reason=\"invalid_request\"} 1",
        "kembed_batch_inputs_count 1",
        "kembed_batch_fill_ratio_bucket{le=\"0.3\"} 1",
        "kembed_tokens_total 3",
        "kembed_run_seconds_count 1",
        "kembed_serialise_seconds_count 1",
        "kembed_queue_tokens{lane=\"interactive\"} 0",
        "kembed_queue_requests{lane=\"interactive\"} 0",
        "kembed_worker_busy_seconds_total{worker=\"0\"} ",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn what_waits_is_counted_by_lane() {
    let mut tested = waiting(limits(), identity());
    let held = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let bulk =
        tokio::spawn(
            async move { embed_with(&pod, (LANE_HEADER, "bulk"), r#"{"input": ["b", "c c"]}"#).await },
        );
    waits(&tested.pod, 2).await;
    let metrics = get(&tested.pod, "/metrics").await.text;
    for line in [
        "kembed_queue_requests{lane=\"interactive\"} 1",
        "kembed_queue_requests{lane=\"bulk\"} 1",
        "kembed_queue_inputs{lane=\"interactive\"} 0",
        "kembed_queue_inputs{lane=\"bulk\"} 2",
        "kembed_queue_tokens{lane=\"bulk\"} 7",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    for _ in 0..3 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    for answer in [held, bulk] {
        assert_eq!(answer.await.expect("no panic").status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_request_whose_deadline_comes_before_its_turn_is_refused_at_once() {
    let mut tested = waiting(limits(), identity());
    // The pod's speed is known after its first batch.
    tested.orders.send(Order::Answer).expect("the stub waits");
    assert_eq!(hold(&mut tested).await.await.expect("no panic").status, StatusCode::OK);
    let hasty = |lane| {
        let inputs = vec![Input::Text("g".into())];
        let terms = Terms { lane, deadline: Some(std::time::Instant::now()) };
        (terms, EmbedRequest { inputs, ..EmbedRequest::default() })
    };
    let engine = &tested.pod.clone();
    let engine = &engine.serving().expect("it serves").engine;
    // Nothing is before this one: it is tried, in vain.
    let (terms, request) = hasty(Lane::Interactive);
    assert!(matches!(
        engine.embed_in(terms, &mut engine.admit().expect("room"), request).await,
        Err(EmbedError::TooLate)
    ));

    let running = hold(&mut tested).await;
    let pod = tested.pod.clone();
    let bulk =
        tokio::spawn(async move { embed_with(&pod, (LANE_HEADER, "bulk"), r#"{"input": "b"}"#).await });
    waits(&tested.pod, 1).await;
    let (terms, request) = hasty(Lane::Bulk);
    assert!(matches!(
        engine.embed_in(terms, &mut engine.admit().expect("room"), request).await,
        Err(EmbedError::Submit(SubmitError::Hopeless { .. }))
    ));
    for _ in 0..2 {
        tested.orders.send(Order::Answer).expect("the stub waits");
    }
    for answer in [running, bulk] {
        assert_eq!(answer.await.expect("no panic").status, StatusCode::OK);
    }
}
