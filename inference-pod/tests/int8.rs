//! Networks in 8-bit integers: close to the same in floats, and a vector never depends on what it was batched with.

mod support;

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use inference_pod::{
    backend::{
        Backend,
        onnx::{Graph, Onnx, Output, load_library},
    },
    batch::row::Row,
    engine::{Engine, Input, Request},
    export::export,
    limits::Limits,
    load::load,
    model::{ModelError, Overrides, Precision, Recipe, recipe::Texts, weights::Weights},
    pod::{Pod, Serving},
    start::StartError,
};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    normalized: Vec<f32>,
}

fn golden() -> Vec<Case> {
    let golden: Golden =
        serde_json::from_str(include_str!("golden/all-minilm-l6-v2.json")).expect("a good file");
    golden.cases
}

fn overrides(precision: Precision) -> Overrides {
    Overrides { precision, ..Overrides::default() }
}

async fn serving(folder: &Path, file: Option<&str>, precision: Precision) -> Result<Serving, StartError> {
    let config = support::from_folder(folder, file, overrides(precision));
    Ok(load(config, 2, &Pod::new(support::identity(), Limits::new(2))).await?.0)
}

async fn embed(engine: &Engine, texts: &[&str]) -> Vec<Vec<f32>> {
    let inputs = texts.iter().map(|&text| Input::Text(text.to_owned())).collect();
    engine.embed(Request { inputs, ..Request::default() }).await.expect("it embeds").vectors
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[tokio::test]
async fn vectors_stay_close_to_those_of_floats_whatever_they_are_asked_with() {
    let cases = golden();
    let serving = serving(&support::build("model"), None, Precision::Int8).await.expect("it loads");
    let texts: Vec<_> = cases.iter().map(|case| case.text.as_str()).collect();
    let together = embed(&serving.engine, &texts).await;
    let mut cosines = Vec::new();
    for (case, vector) in cases.iter().zip(&together) {
        assert_eq!(&embed(&serving.engine, &[&case.text]).await[0], vector, "{:?}", case.text);
        cosines.push(cosine(vector, &case.normalized));
    }
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let worst = cosines.iter().copied().fold(1., f64::min);
    println!("cosine to float32: mean {mean:.5}, worst {worst:.5}");
    assert!(mean >= 0.998 && worst >= 0.99, "mean {mean}, worst {worst}");
}

#[tokio::test]
async fn a_precision_is_a_space_of_its_own() {
    let mut digests = BTreeSet::new();
    for precision in [Precision::Float32, Precision::Int8] {
        let serving = serving(&support::model("bert"), None, precision).await.expect("it loads");
        assert_eq!(serving.engine.numbers(), precision.into());
        digests.insert(serving.space.digest);
    }
    assert_eq!(digests.len(), 2);
}

#[tokio::test]
async fn a_shipped_graph_is_not_rounded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(support::model("bert").join(file), folder.path().join(file)).expect("it can be copied");
    }
    fs::write(folder.path().join("model.onnx"), "never looked at").expect("it can be written");
    let error =
        serving(folder.path(), Some("model.onnx"), Precision::Int8).await.err().expect("it cannot be");
    assert!(error.to_string().contains("computed as it was made"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let mut tensors = support::tensors(0);
    let name = "encoder.layer.1.intermediate.dense.weight";
    tensors.get_mut(name).expect("it is there").1[3] = f32::NAN;
    let folder = tempfile::tempdir().expect("a temporary folder");
    support::write(folder.path(), &[("model.safetensors", support::safetensors(&tensors))]);
    let texts = Texts { config: support::CONFIG, ..Texts::default() };
    let recipe = Recipe::read(texts, &overrides(Precision::Int8)).expect("a good recipe");
    let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("a good file");
    let error = export(&recipe, &weights).expect_err("one number is none");
    assert!(matches!(&error, ModelError::Invalid { what, .. } if what.contains(name)), "{error}");
}

/// Tokens of a row at most: more would only take longer.
const LONGEST: usize = 40;

/// A network without a batcher around it, so that a test says what a batch is.
struct Bare {
    onnx: Onnx,
    vocabulary: u32,
    longest: usize,
}

impl Bare {
    fn new(folder: &Path) -> Self {
        let config = fs::read_to_string(folder.join("config.json")).expect("it can be read");
        let texts = Texts { config: &config, ..Texts::default() };
        let recipe = Recipe::read(texts, &overrides(Precision::Int8)).expect("a good file");
        let weights = Weights::open(&[folder.join("model.safetensors")]).expect("good weights");
        let graph = export(&recipe, &weights).expect("it can be exported");
        let environment = load_library(&support::onnxruntime()).expect("the library loads");
        let output = recipe.labels.as_ref().map_or(Output::Pooled(recipe.pooling), |_| Output::Scores);
        let onnx = Onnx::new(&environment, Graph::Made(graph), output, 0).expect("a good graph");
        Self { onnx, vocabulary: recipe.config.vocab_size as u32, longest: recipe.max_tokens.min(LONGEST) }
    }

    fn vectors(&self, rows: &[Vec<u32>]) -> Vec<Vec<u32>> {
        let row =
            |ids: &Vec<u32>| Row::new(ids.iter().take(self.longest).map(|id| id % self.vocabulary).collect());
        let rows: Vec<Row> = rows.iter().map(row).collect();
        let vectors = self.onnx.clone().run(&rows.iter().collect::<Vec<_>>());
        let bits = |vector: Vec<f32>| vector.into_iter().map(f32::to_bits).collect();
        vectors.expect("it runs").into_iter().map(bits).collect()
    }
}

static BARE: LazyLock<Vec<(String, Bare)>> = LazyLock::new(|| {
    let mut folders = vec![support::build("model")];
    let models = fs::read_dir(support::model("")).expect("it can be listed").filter_map(Result::ok);
    // Split weights are another way to read, not another network.
    folders.extend(models.map(|entry| entry.path()).filter(|path| path.join("model.safetensors").exists()));
    folders.iter().map(|folder| (folder.display().to_string(), Bare::new(folder))).collect()
});

/// Rows of one length, which is what a batch is made of.
fn batch() -> impl Strategy<Value = Vec<Vec<u32>>> {
    (1..=LONGEST, 2..=12usize).prop_flat_map(|(length, rows)| {
        proptest::collection::vec(proptest::collection::vec(0..30_000u32, length), rows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_vector_does_not_depend_on_what_it_was_batched_with(rows in batch(), split in any::<prop::sample::Index>()) {
        for (name, network) in BARE.iter() {
            let together = network.vectors(&rows);
            let (first, second) = rows.split_at(split.index(rows.len() - 1) + 1);
            let in_two = [network.vectors(first), network.vectors(second)].concat();
            prop_assert_eq!(&in_two, &together, "{} in two batches", name);
            let turned: Vec<_> = rows.iter().rev().cloned().collect();
            let mut back = network.vectors(&turned);
            back.reverse();
            prop_assert_eq!(&back, &together, "{} the other way round", name);
            for (i, row) in rows.iter().enumerate() {
                prop_assert_eq!(&network.vectors(std::slice::from_ref(row))[0], &together[i], "{} alone", name);
            }
        }
    }
}
