//! What clients of text-embeddings-inference get, with a stub in place of a network.

mod support;

use std::sync::Arc;

use axum::{body::Body, http::Request};
use inference_pod::{
    limits::Limits,
    pod::{Pod, Stage},
};
use serde_json::{Value, json};
use support::{Answer, answering, classifying, get, identity, limits, send};

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
async fn a_network_that_pools_by_itself_has_no_vectors_of_tokens() {
    let pod = support::without_tokens();
    let refused = post(&pod, "/embed_all", json!({"inputs": "a"})).await;
    assert_refused(&refused, 424, "Backend", false);
    assert_eq!(post(&pod, "/embed", json!({"inputs": "a"})).await.status, 200);
}

#[tokio::test]
async fn embed_all_answers_a_vector_for_each_token() {
    let pod = answering(limits(), identity());
    let vectors = |ids: &[u32]| ids.iter().map(|&id| json!([f64::from(id), 1.0, 0.0])).collect::<Value>();
    for (body, expected) in [
        (json!({"inputs": "a b"}), json!([vectors(&[1, 4, 5, 2])])),
        (json!({"inputs": ["a", [5, 4]]}), json!([vectors(&[1, 4, 2]), vectors(&[5, 4])])),
        (json!({"inputs": "a", "prompt_name": "query"}), json!([vectors(&[1, 11, 4, 2])])),
    ] {
        let answer = post(&pod, "/embed_all", body.clone()).await;
        assert_eq!(answer.json(), expected, "{body}");
        assert_eq!(answer.header("x-kembed-space"), Some(support::DIGEST));
    }
    let long = json!({"inputs": "a ".repeat(20), "truncate": false});
    assert_refused(&post(&pod, "/embed_all", long).await, 413, "Validation", false);
    assert_refused(&post(&pod, "/embed_all", json!({"inputs": ["a", ""]})).await, 400, "Empty", false);
}

#[tokio::test]
async fn an_answer_that_would_be_too_large_is_refused() {
    // A quarter of it is for fifteen tokens of 48 bytes.
    let pod = answering(Limits { bytes: 4 * 15 * 48, ..limits() }, identity());
    let refused = post(&pod, "/embed_all", json!({"inputs": "a ".repeat(14)})).await;
    assert_refused(&refused, 413, "Validation", false);
    assert!(refused.text.contains("16 tokens"), "{}", refused.text);
    assert_eq!(post(&pod, "/embed_all", json!({"inputs": "a"})).await.status, 200);
}

#[tokio::test]
async fn texts_are_ranked_by_how_well_they_go_with_a_query() {
    let pod = classifying(1, limits());
    // The stub's number is how many tokens a pair has: three special ones, the query's and the text's.
    let share = |number: f32| -> Value {
        let written = (1. / (1. + (-number).exp())).to_string();
        written.parse().expect("a number")
    };
    let texts = json!(["a", "a b c", "b"]);
    for (options, expected) in [
        (
            json!({"raw_scores": true}),
            json!([{"index": 1, "score": 7.0}, {"index": 0, "score": 5.0}, {"index": 2, "score": 5.0}]),
        ),
        (
            json!({"return_text": true}),
            json!([
                {"index": 1, "text": "a b c", "score": share(7.)},
                {"index": 0, "text": "a", "score": share(5.)},
                {"index": 2, "text": "b", "score": share(5.)},
            ]),
        ),
    ] {
        let mut body = json!({"query": "g", "texts": texts});
        body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        for path in ["/rerank", "/"] {
            let answer = post(&pod, path, body.clone()).await;
            assert_eq!(answer.json(), expected, "{path} {options}");
            assert_eq!(answer.header("x-kembed-space"), Some(support::DIGEST));
        }
    }
    let long = json!({"query": "g", "texts": ["a ".repeat(20)], "truncate": false});
    assert_refused(&post(&pod, "/rerank", long).await, 413, "Validation", false);
}

#[tokio::test]
async fn a_query_counts_for_each_text_that_it_stands_before() {
    let pod = classifying(1, Limits { bytes: 2048, ..limits() });
    let body = |texts: usize| json!({"query": "a ".repeat(12), "texts": vec!["b"; texts]});
    assert_eq!(post(&pod, "/rerank", body(1)).await.status, 200);
    assert_refused(&post(&pod, "/rerank", body(5)).await, 429, "Overloaded", true);
}

#[tokio::test]
async fn texts_and_pairs_are_classified() {
    let pod = classifying(3, limits());
    let told = |bad: f64, good: f64| json!([{"score": good, "label": "good"}, {"score": bad, "label": "bad"}, {"score": 0.0, "label": "none"}]);
    for (inputs, expected) in [
        (json!("a"), told(3., 7.)),
        (json!(["a"]), told(3., 7.)),
        // A second `[SEP]`, and two tokens of a second text.
        (json!(["a", "b"]), told(5., 2014.)),
        (json!([["a"], ["a", "b"]]), json!([told(3., 7.), told(5., 2014.)])),
        (json!([["a"]]), json!([told(3., 7.)])),
    ] {
        for path in ["/predict", "/"] {
            let answer = post(&pod, path, json!({"inputs": inputs, "raw_scores": true})).await;
            assert_eq!(answer.json(), expected, "{path} {inputs}");
        }
    }
    let shares = post(&pod, "/predict", json!({"inputs": "a"})).await.json();
    let sum: f64 = shares.as_array().expect("a list").iter().filter_map(|p| p["score"].as_f64()).sum();
    assert!((sum - 1.).abs() < 1e-6 && shares[0]["label"] == "good", "{shares}");
}

#[tokio::test]
async fn a_model_refuses_what_it_was_not_made_for() {
    let rerank = || json!({"query": "a", "texts": ["b"]});
    let predict = || json!({"inputs": "a"});
    let embedder = answering(limits(), identity());
    let (classifier, reranker) = (classifying(2, limits()), classifying(1, limits()));
    for (pod, path, body, message) in [
        (&embedder, "/rerank", rerank(), "model is not a re-ranker model"),
        (&embedder, "/predict", predict(), "model is not a classifier model"),
        (&classifier, "/rerank", rerank(), "model is not a re-ranker model"),
        (&classifier, "/embed", predict(), "model is not an embedding model"),
        (&classifier, "/embed_all", predict(), "model is not an embedding model"),
        (
            &reranker,
            "/similarity",
            json!({"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
            "model is not an embedding model",
        ),
    ] {
        let answer = post(pod, path, body).await;
        assert_refused(&answer, 424, "Backend", false);
        assert_eq!(answer.json()["error"], message, "{path}");
    }
    assert_eq!(post(&reranker, "/predict", predict()).await.json()[0]["label"], "bad");
    let answer = support::embed(&classifier, r#"{"input": "a"}"#).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (400, &json!("unsupported_by_model"))
    );
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
        ("/embed_all", json!({"inputs": []}), 400, "Empty"),
        ("/rerank", json!({"query": "a", "texts": "a"}), 422, "Validation"),
        ("/predict", json!({"inputs": ["a", "b", "c"]}), 422, "Validation"),
        ("/tokenize", json!({"inputs": []}), 400, "Empty"),
        ("/tokenize", json!({"inputs": [1]}), 422, "Validation"),
        ("/decode", json!({"ids": []}), 400, "Empty"),
        ("/decode", json!({"ids": "a"}), 422, "Validation"),
    ] {
        assert_refused(&post(&pod, path, body).await, status, kind, false);
    }
}

#[tokio::test]
async fn what_cannot_be_classified_is_refused_in_teis_form() {
    let pod = classifying(1, limits());
    for (path, body, status, kind) in [
        ("/rerank", json!({"query": "a", "texts": []}), 400, "Empty"),
        ("/rerank", json!({"query": "", "texts": ["a", ""]}), 400, "Empty"),
        ("/rerank", json!({"query": "a", "texts": ["a", "a", "a", "a", "a", "a"]}), 413, "Validation"),
        ("/rerank", json!({"query": "a", "texts": [["a"]]}), 422, "Validation"),
        ("/predict", json!({"inputs": []}), 400, "Empty"),
        ("/predict", json!({"inputs": ""}), 400, "Empty"),
        ("/predict", json!({"inputs": [["a"], []]}), 422, "Validation"),
        ("/predict", json!({"inputs": "a", "truncation_direction": "up"}), 422, "Validation"),
    ] {
        assert_refused(&post(&pod, path, body).await, status, kind, false);
    }
    // An empty text is one side of a pair.
    assert_eq!(post(&pod, "/rerank", json!({"query": "a", "texts": [""]})).await.status, 200);
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
    let labels = json!({"id2label": {"0": "bad"}, "label2id": {"bad": 0}});
    let info = get(&classifying(1, limits()), "/info").await.json();
    assert_eq!((&info["model_type"], &info["space"]["dimension"]), (&json!({"reranker": labels}), &json!(1)));
    let info = get(&classifying(2, limits()), "/info").await.json();
    assert_eq!(info["model_type"]["classifier"]["label2id"], json!({"bad": 0, "good": 1}));
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
    assert_eq!(info.get("devices"), None, "it computes on the CPU");
}
