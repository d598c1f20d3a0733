//! The routes of text-embeddings-inference, asked from another pod by the service's name, and so through a gateway.

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace,
    golden::{self, Classified, Pair, cosine},
    service::{CLASSIFIER, MODEL, RERANKER, minilm, of_model, recorded_space},
    with_temp_ns,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// What two numbers may differ by.
const ALIKE: f64 = 1e-4;

/// What `/predict` tells of a label, and `/rerank` of a text.
#[derive(Debug, Deserialize)]
struct Told {
    score: f64,
    #[serde(default)]
    label: String,
    #[serde(default)]
    index: usize,
    #[serde(default)]
    text: String,
}

fn read<T: DeserializeOwned>(answer: &Value) -> anyhow::Result<T> {
    serde_json::from_value(answer.clone()).with_context(|| format!("another answer than expected: {answer}"))
}

#[track_caller]
fn assert_alike(one: f64, other: f64, what: &str) {
    assert!((one - other).abs() < ALIKE, "{one} and {other}: {what}");
}

/// Asks a service's routes from a pod.
async fn ask(ns: &TempNamespace, name: &str, routes: &[(&str, Option<Value>)]) -> anyhow::Result<Vec<Value>> {
    let url = |route: &str| format!("http://{name}.{}.svc{route}", ns.name);
    let asked: Vec<_> = routes.iter().map(|(route, body)| (url(route), body.clone())).collect();
    let asked: Vec<_> = asked.iter().map(|(url, body)| (url.as_str(), body.clone())).collect();
    ns.ask(&asked).await
}

#[tokio::test]
async fn a_model_of_vectors_answers_what_can_be_made_of_them() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        let service = ns.await_serving("minilm", 1).await?;
        let all = golden::all()?;
        let [fox, hello, code] = [&all[0], &all[8], &all[41]];
        let texts = [&fox.text, &hello.text, &code.text];
        let compared = json!({"source_sentence": fox.text, "sentences": [hello.text, code.text, fox.text]});
        let routes = [
            ("/embed_all", Some(json!({"inputs": texts}))),
            ("/similarity", Some(json!({"inputs": compared}))),
            ("/tokenize", Some(json!({"inputs": texts}))),
            ("/decode", Some(json!({"ids": [fox.tokens, hello.tokens]}))),
            ("/info", None),
        ];
        let answers = ask(&ns, "minilm", &routes).await?;

        let vectors: Vec<Vec<Vec<f64>>> = read(&answers[0])?;
        for (golden, vectors) in [fox, hello, code].iter().zip(&vectors) {
            ensure!(vectors.len() == golden.tokens.len(), "{} vectors of {:?}", vectors.len(), golden.text);
            let mean = |i| vectors.iter().map(|vector| vector[i]).sum::<f64>() / vectors.len() as f64;
            golden.mean.iter().enumerate().for_each(|(i, &of)| assert_alike(mean(i), of, "the mean of tokens"));
        }
        let cosines: Vec<f64> = read(&answers[1])?;
        for (golden, &told) in [hello, code, fox].iter().zip(&cosines) {
            assert_alike(told, cosine(&fox.vector, &golden.vector), &golden.text);
        }
        ensure!(vectors.len() == 3 && cosines.len() == 3, "{} texts and {} cosines", vectors.len(), cosines.len());

        let tokens: Vec<Vec<Value>> = read(&answers[2])?;
        ensure!(tokens.len() == 3, "the tokens of {} texts", tokens.len());
        for (golden, tokens) in [fox, hello, code].iter().zip(tokens) {
            let ids: Vec<_> = tokens.iter().map(|token| &token["id"]).collect();
            ensure!(json!(ids) == json!(golden.tokens), "{:?} becomes {ids:?}", golden.text);
            let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
            ensure!(first["special"] == true && last["special"] == true, "{first} and {last} surround it");
            let start = tokens[1]["start"].as_u64().context("a token without a place")?;
            ensure!(start == 0, "the first token of {:?} begins at {start}", golden.text);
        }
        ensure!(answers[3] == json!([fox.text.to_lowercase(), hello.text]), "texts became {}", answers[3]);

        let space = recorded_space(&service)?;
        let info = &answers[4];
        let expected = json!({
            "model_id": format!("hf://{MODEL}"), "model_sha": space.revision, "max_input_length": space.max_tokens,
            "model_dtype": "float32", "model_type": {"embedding": {"pooling": "mean"}},
        });
        for (field, value) in expected.as_object().context("an object")? {
            ensure!(info[field] == *value, "{field} is not {value}: {info}");
        }
        let told = (&info["space"]["digest"], &info["space"]["dimension"]);
        ensure!(told == (&json!(space.digest), &json!(384)), "another space than {space:?}: {info}");
        Ok(())
    })
    .await
}

/// By the service's name, and by a path below the gateway's, where the page finds the API beside itself.
#[tokio::test]
async fn people_get_the_page_and_machines_the_description() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        for base in
            [format!("http://minilm.{}.svc", ns.name), format!("http://kembed.example/{}/minilm", ns.name)]
        {
            let page = ns.kembed.gateway.get_of_pod(&format!("{base}/ui")).await?;
            ensure!(page.header("content-type") == Some("text/html; charset=utf-8"), "{page:?}");
            for asked in ["fetch(\"v1/embeddings\"", "fetch(\"info\""] {
                ensure!(page.body.contains(asked), "the page does not ask {asked}");
            }
            let described = ns.kembed.gateway.get_of_pod(&format!("{base}/openapi.json")).await?.json()?;
            ensure!(described["paths"]["/v1/embeddings"]["post"].is_object(), "{described}");
            let info = ns.kembed.gateway.get_of_pod(&format!("{base}/info")).await?.json()?;
            ensure!(info["model_id"] == format!("hf://{MODEL}"), "{info}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_classifier_tells_its_labels() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(of_model("classifier", &format!("hf://{CLASSIFIER}"))).await?;
        ns.await_serving("classifier", 1).await?;
        let golden = golden::classified()?;
        let inputs = golden.iter().map(|Classified { text, pair, .. }| match pair {
            None => json!([text]),
            Some(pair) => json!([text, pair]),
        });
        let inputs: Vec<_> = inputs.collect();
        ensure!(inputs.iter().any(|input| input[1].is_string()), "no pair is among them");
        let routes = [
            ("/predict", Some(json!({"inputs": inputs}))),
            ("/predict", Some(json!({"inputs": inputs, "raw_scores": true}))),
            ("/info", None),
        ];
        let answers = ask(&ns, "classifier", &routes).await?;
        let [shares, raw]: [Vec<Vec<Told>>; 2] = [read(&answers[0])?, read(&answers[1])?];
        ensure!(
            shares.len() == golden.len() && raw.len() == golden.len(),
            "{} and {}",
            shares.len(),
            raw.len()
        );
        for (golden, (shares, raw)) in golden.iter().zip(shares.iter().zip(&raw)) {
            let sum: f64 = golden.scores.iter().map(|score| score.exp()).sum();
            told(shares, golden, |score| score.exp() / sum)?;
            told(raw, golden, |score| score)?;
        }
        let labels = json!({"bad": 0, "good": 1, "neither": 2});
        ensure!(answers[2]["model_type"]["classifier"]["label2id"] == labels, "{}", answers[2]);
        Ok(())
    })
    .await
}

/// Checks what is told of a text: each label, the likeliest first.
fn told(told: &[Told], golden: &Classified, score: impl Fn(f64) -> f64) -> anyhow::Result<()> {
    ensure!(told.is_sorted_by(|a, b| a.score >= b.score), "not the likeliest first: {told:?}");
    for (label, &expected) in ["bad", "good", "neither"].iter().zip(&golden.scores) {
        let one =
            told.iter().find(|told| told.label == *label).with_context(|| format!("no {label}: {told:?}"))?;
        assert_alike(one.score, score(expected), &format!("{label}, {:?}", golden.text));
    }
    ensure!(told.len() == golden.scores.len(), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_reranker_tells_which_text_goes_best_with_a_question() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(of_model("reranker", &format!("hf://{RERANKER}"))).await?;
        ns.await_serving("reranker", 1).await?;
        let golden = golden::pairs()?;
        let body =
            |pair: &Pair| json!({"query": pair.query, "texts": [pair.text, "x y z"], "return_text": true});
        let routes: Vec<_> = golden.iter().map(|pair| ("/rerank", Some(body(pair)))).collect();
        for (pair, answer) in golden.iter().zip(ask(&ns, "reranker", &routes).await?) {
            let ranks: Vec<Told> = read(&answer)?;
            ensure!(ranks.len() == 2 && ranks[0].score >= ranks[1].score, "best first, please: {ranks:?}");
            let rank = ranks.iter().find(|rank| rank.index == 0).context("a text was not ranked")?;
            ensure!(rank.text == pair.text, "another text: {rank:?}");
            assert_alike(rank.score, 1. / (1. + (-pair.score[0]).exp()), &pair.text);
        }
        Ok(())
    })
    .await
}
