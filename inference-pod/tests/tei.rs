//! What clients of text-embeddings-inference get, with a stub in place of a network.

mod support;

use std::sync::Arc;

use axum::{body::Body, http::Request};
use inference_pod::pod::{Pod, Stage};
use serde_json::{Value, json};
use support::{Answer, answering, get, identity, limits, send};

async fn post(pod: &Arc<Pod>, path: &str, body: Value) -> Answer {
    let request = Request::post(path).header("content-type", "application/json");
    send(pod, request.body(Body::from(body.to_string())).expect("a good request")).await
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, error_type: &str, retry: bool) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let json = answer.json();
    assert_eq!(json["error_type"], error_type, "{json}");
    assert!(json["error"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
    assert_eq!(answer.header("x-should-retry"), Some(if retry { "true" } else { "false" }));
    assert_eq!(answer.header("retry-after").is_some(), retry && matches!(status, 429 | 503));
}

#[tokio::test]
async fn embed_answers_a_list_of_vectors() {
    let pod = answering(limits(), identity());
    // `[CLS]` is 1, `[SEP]` is 2, `a` is 4, and so on; the prompt for queries is 11.
    for (body, expected) in [
        (json!({"inputs": "a b", "normalize": false}), json!([[4.0, 12.0, 0.0]])),
        (json!({"inputs": ["a", [4, 5]], "normalize": false}), json!([[3.0, 7.0, 0.0], [2.0, 9.0, 0.0]])),
        (json!({"inputs": "a", "normalize": false, "dimensions": 1}), json!([[3.0]])),
        (json!({"inputs": "a", "normalize": false, "prompt_name": "query"}), json!([[4.0, 18.0, 0.0]])),
        (json!({"inputs": "a", "dimensions": 1}), json!([[1.0]])),
    ] {
        for path in ["/embed", "/"] {
            let answer = post(&pod, path, body.clone()).await;
            assert_eq!(answer.json(), expected, "{path} {body}");
            assert_eq!(answer.header("x-kembed-space"), Some(support::DIGEST));
        }
    }
}

#[tokio::test]
async fn vectors_have_length_one_unless_a_client_says_otherwise() {
    let pod = answering(limits(), identity());
    let vector = post(&pod, "/embed", json!({"inputs": "a"})).await.json();
    let length: f64 =
        vector[0].as_array().expect("a list").iter().filter_map(Value::as_f64).map(|x| x * x).sum();
    assert!((length - 1.).abs() < 1e-6, "{vector}");
}

#[tokio::test]
async fn a_text_that_is_too_long_is_cut_as_asked() {
    let pod = answering(limits(), identity());
    let text = format!("b {}c", "a ".repeat(14));
    // Sixteen tokens with two special ones: 3, then fourteen of the text.
    for (options, sum) in [
        (json!({}), 3 + 5 + 13 * 4),
        (json!({"truncate": true}), 3 + 5 + 13 * 4),
        (json!({"truncate": true, "truncation_direction": "Left"}), 3 + 6 + 13 * 4),
    ] {
        let mut body = json!({"inputs": text, "normalize": false});
        body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        assert_eq!(
            post(&pod, "/embed", body).await.json(),
            json!([[16.0, f64::from(sum), 0.0]]),
            "{options}"
        );
    }
    let refused = post(&pod, "/embed", json!({"inputs": text, "truncate": false})).await;
    assert_refused(&refused, 413, "Validation", false);
    assert!(refused.text.contains("16 tokens"), "{}", refused.text);
}

#[tokio::test]
async fn sentences_are_compared_by_cosine() {
    let pod = answering(limits(), identity());
    let inputs = json!({"source_sentence": "a", "sentences": ["a", "g g g"]});
    let answer = post(&pod, "/similarity", json!({"inputs": inputs})).await;
    let cosines: Vec<f64> = serde_json::from_str(&answer.text).expect("a list of numbers");
    // (3, 7) and (5, 33).
    let other = (3. * 5. + 7. * 33.) / (58f64.sqrt() * 1114f64.sqrt());
    assert!((cosines[0] - 1.).abs() < 1e-6 && (cosines[1] - other).abs() < 1e-6, "{cosines:?}");
    assert_eq!(cosines.len(), 2);
    let none = json!({"inputs": {"source_sentence": "a", "sentences": []}});
    assert_refused(&post(&pod, "/similarity", none).await, 400, "Empty", false);
}

#[tokio::test]
async fn texts_become_tokens_and_texts_again() {
    let pod = answering(limits(), identity());
    let tokens = post(&pod, "/tokenize", json!({"inputs": "a zé"})).await.json();
    let special = |id, text| json!({"id": id, "text": text, "special": true, "start": null, "stop": null});
    let plain = |id, text, start, stop| json!({"id": id, "text": text, "special": false, "start": start, "stop": stop});
    let expected =
        json!([[special(1, "[CLS]"), plain(4, "a", 0, 1), plain(3, "zé", 2, 5), special(2, "[SEP]")]]);
    assert_eq!(tokens, expected);
    let bare = json!({"inputs": ["a", "a ".repeat(20)], "add_special_tokens": false});
    let tokens = post(&pod, "/tokenize", bare).await.json();
    assert_eq!((tokens[0].as_array().map(Vec::len), tokens[1].as_array().map(Vec::len)), (Some(1), Some(20)));
    for (ids, texts) in [(json!([4, 5]), json!(["a b"])), (json!([[4], [5, 6]]), json!(["a", "b c"]))] {
        assert_eq!(post(&pod, "/decode", json!({"ids": ids})).await.json(), texts);
    }
}

#[tokio::test]
async fn requests_at_fault_are_refused_in_teis_form() {
    let pod = answering(limits(), identity());
    for (path, body, status, kind) in [
        ("/embed", json!({"inputs": ""}), 400, "Empty"),
        ("/embed", json!({"inputs": []}), 400, "Empty"),
        ("/embed", json!({"inputs": ["a", "a", "a", "a", "a", "a"]}), 413, "Validation"),
        ("/embed", json!({"inputs": [12]}), 422, "Validation"),
        ("/embed", json!({"inputs": 1}), 422, "Validation"),
        ("/embed", json!({"inputs": "a", "dimensions": 4}), 422, "Validation"),
        ("/embed", json!({"inputs": "a", "prompt_name": "x"}), 422, "Validation"),
        ("/embed", json!({"inputs": "a".repeat(1000)}), 413, "Validation"),
        ("/", json!({"input": "a"}), 422, "Validation"),
        ("/similarity", json!({"inputs": "a"}), 422, "Validation"),
        ("/tokenize", json!({"inputs": []}), 400, "Empty"),
        ("/tokenize", json!({"inputs": [1]}), 422, "Validation"),
        ("/decode", json!({"ids": []}), 400, "Empty"),
        ("/decode", json!({"ids": "a"}), 422, "Validation"),
    ] {
        assert_refused(&post(&pod, path, body).await, status, kind, false);
    }
}

#[tokio::test]
async fn health_and_refusals_of_a_pod_without_a_model_have_teis_form() {
    let pod = Arc::new(Pod::new(identity(), limits()));
    assert_refused(&get(&pod, "/health").await, 503, "Unhealthy", true);
    assert_refused(&post(&pod, "/embed", json!({"inputs": "a"})).await, 503, "Unhealthy", true);
    let pod = answering(limits(), identity());
    assert_eq!(get(&pod, "/health").await.status, 200);
    pod.enter(Stage::Stopping);
    assert_refused(&get(&pod, "/health").await, 503, "Unhealthy", true);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_in_teis_form() {
    let pod = answering(limits(), identity());
    let silent = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = send(&pod, Request::post("/embed").body(silent).expect("a good request")).await;
    assert_refused(&answer, 504, "Backend", true);
}

#[tokio::test]
async fn info_has_what_teis_clients_read() {
    let pod = answering(limits(), identity());
    let info = get(&pod, "/info").await.json();
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "mean"}}));
    for (field, value) in [
        ("served_model_name", json!("b")),
        ("model_dtype", json!("float32")),
        ("max_client_batch_size", json!(5)),
        ("max_concurrent_requests", json!(4)),
        ("auto_truncate", json!(true)),
        ("max_input_length", json!(16)),
    ] {
        assert_eq!(info[field], value, "{field}");
    }
}
