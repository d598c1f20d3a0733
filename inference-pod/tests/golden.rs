//! The vectors of a real model, all the way from its files, compared with those of the reference implementation.

mod support;

use std::{fs, path::Path};

use inference_pod::{
    engine::{Embeddings, Engine, Input, Request},
    export::export,
    limits::Limits,
    load::load,
    model::{Overrides, Recipe, recipe::Texts, weights::Weights},
    pod::{Pod, Serving},
};
use serde::Deserialize;

/// The least cosine of two vectors that count as one.
const ALIKE: f64 = 0.99999;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    input_ids: Vec<u32>,
    mean_pooled: Vec<f32>,
    normalized: Vec<f32>,
}

fn golden() -> Vec<Case> {
    let golden: Golden =
        serde_json::from_str(include_str!("golden/all-minilm-l6-v2.json")).expect("a good file");
    assert_eq!(golden.cases.len(), 92);
    golden.cases
}

async fn serving(folder: &Path, file: Option<&str>, overrides: Overrides) -> Serving {
    let pod = Pod::new(support::identity(), Limits::new(2));
    let config = support::from_folder(folder, file, overrides);
    load(config, 2, &pod).await.expect("the model loads").0
}

async fn embed(engine: &Engine, inputs: Vec<Input>) -> Embeddings {
    let request = Request { inputs, ..Request::default() };
    engine.embed(request).await.expect("it embeds")
}

fn text(case: &Case) -> Input {
    Input::Text(case.text.clone())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[track_caller]
fn assert_alike(case: &Case, vector: &[f32]) {
    assert_eq!(vector.len(), 384);
    let cosine = cosine(vector, &case.normalized);
    assert!(cosine >= ALIKE, "{:?}: cosine {cosine}", case.text.chars().take(60).collect::<String>());
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.).abs() < 1e-5, "length {length}");
}

#[tokio::test]
async fn vectors_are_those_of_the_reference_alone_and_batched() {
    let cases = golden();
    let Serving { engine, space, .. } = serving(&support::build("model"), None, Overrides::default()).await;
    assert_eq!((space.dimension, space.max_tokens), (384, 256));
    for case in &cases {
        assert_alike(case, &embed(&engine, vec![text(case)]).await.vectors[0]);
    }
    let batched = embed(&engine, cases.iter().map(text).collect()).await;
    for (case, vector) in cases.iter().zip(&batched.vectors) {
        assert_alike(case, vector);
    }
    assert_eq!(batched.tokens, cases.iter().map(|case| case.input_ids.len()).sum::<usize>());
    let by_ids = cases.iter().map(|case| Input::Tokens(case.input_ids.clone())).collect();
    for (case, vector) in cases.iter().zip(&embed(&engine, by_ids).await.vectors) {
        assert_alike(case, vector);
    }
}

#[tokio::test]
async fn a_shipped_graph_gives_the_same_and_is_another_space() {
    let model = support::build("model");
    // Beside the model, so that the weights need not be copied.
    let folder = tempfile::tempdir_in(support::build("")).expect("a temporary folder");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::hard_link(model.join(file), folder.path().join(file)).expect("it can be linked");
    }
    let config = fs::read_to_string(model.join("config.json")).expect("it can be read");
    let texts = Texts { config: &config, ..Texts::default() };
    let recipe = Recipe::read(texts, &Overrides::default()).expect("a good file");
    let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("good weights");
    let exported = export(&recipe, &weights).expect("it can be exported");
    fs::write(folder.path().join("model.onnx"), exported.onnx).expect("it can be written");

    // Without modules.json nothing is normalised.
    let unnormalised = Overrides { max_tokens: Some(256), ..Overrides::default() };
    let Serving { engine, space, .. } = serving(folder.path(), Some("model.onnx"), unnormalised).await;
    let cases = golden();
    let vectors = embed(&engine, cases.iter().map(text).collect()).await.vectors;
    for (case, vector) in cases.iter().zip(&vectors) {
        assert!(cosine(vector, &case.mean_pooled) >= ALIKE, "{:?}", case.text);
        let worst = vector.iter().zip(&case.mean_pooled).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
        assert!(worst < 1e-4, "{:?}: {worst}", case.text);
    }
    let other = serving(folder.path(), None, Overrides::default()).await.space;
    assert_ne!(space.digest, other.digest);
}
