//! Small models of each architecture, made by tests/golden/make.py, on the stand-in: their vectors are those of the reference
//! implementation.

use std::{fs, path::PathBuf};

use inference_pod::{
    backend::Backend,
    batch::Batcher,
    cuda::{
        network::{OnGpu, slot_size},
        pipeline::{Settings, start},
    },
    engine::{self, Classify, Engine, Input, Request, Sequence},
    export::packed,
    limits::Limits,
    metrics::Metrics,
    model::{ModelError, Overrides, Precision, Recipe, weights::Weights},
    tokenise::{Cut, Tokeniser},
};
use kembed_queue::{Budget, Rate, wire::Lane};
use prometheus_client::registry::Registry;
use serde::Deserialize;

use super::{PATIENCE, attention, fake::Fake, network::at_once, support};

/// What two numbers of vectors may differ by, as on a CPU.
const ALIKE: f32 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// The second text, where there are two.
    pair: Option<String>,
    vector: Vec<f32>,
}

/// A model of tests/golden.
struct Model {
    folder: PathBuf,
    recipe: Recipe,
    weights: Weights,
}

impl Model {
    fn open(name: &str) -> Self {
        let folder = support::model(name);
        let config = fs::read_to_string(folder.join("config.json")).expect("there is one");
        let recipe = support::recipe(&folder, &config, &Overrides::default());
        let weights = Weights::open(&[folder.join("model.safetensors")]).expect("good weights");
        Self { folder, recipe, weights }
    }

    fn cases(&self) -> Vec<Case> {
        support::golden::<Golden>(&self.folder).cases
    }

    /// What a pod has of it, but that it runs on the stand-in.
    fn engine(self, fake: &Fake, numbers: usize) -> Engine {
        let Self { folder, recipe, weights } = self;
        let (graph, form) = packed::export(&recipe, &weights).expect("a graph for GPUs");
        let (device, streams) = fake.open();
        let compute = at_once(fake, &streams, graph, numbers);
        let batch = Budget { tokens: 1024, rows: 32 };
        let (tokens, longest) = (batch.tokens as usize, recipe.max_tokens);
        let size = slot_size(batch.rows, tokens, longest, form, numbers).expect("it is known how");
        let workers = start(&device, streams, compute, Settings { slots: 2, size, patience: PATIENCE });
        let backend = |worker| Box::new(OnGpu::new(worker, form, numbers)) as Box<dyn Backend>;
        let backends = workers.expect("it starts").into_iter().map(backend).collect();
        let limits = Limits { batch, timeout: PATIENCE, ..Limits::new(1) };
        let metrics = Metrics::new(&mut Registry::default());
        let started = Batcher::start(backends, Rate::default(), limits, metrics.clone());
        let tokenizer = fs::read(folder.join("tokenizer.json")).expect("it can be read");
        let tokeniser = Tokeniser::new(&tokenizer, recipe.max_tokens, recipe.lower_case);
        let (batcher, _) = started.expect("threads");
        let tokeniser = tokeniser.expect("a good tokenizer");
        Engine::new(recipe, tokeniser, batcher, numbers, limits, metrics).without_tokens()
    }
}

#[track_caller]
fn assert_alike(how: &str, case: &Case, vector: &[f32]) {
    assert_eq!(vector.len(), case.vector.len());
    let worst = vector.iter().zip(&case.vector).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    assert!(worst < ALIKE, "{how}, {:?}: {worst}\n{vector:?}\n{:?}", case.text, case.vector);
}

async fn vectors(engine: &Engine, cases: &[&Case]) -> Vec<Vec<f32>> {
    if engine.labels().is_some() {
        let sequence = |case: &&Case| match &case.pair {
            None => Sequence::One(case.text.clone()),
            Some(pair) => Sequence::Pair(case.text.clone(), pair.clone()),
        };
        let texts = engine::Texts::Each(cases.iter().map(sequence).collect());
        let mut held = engine.admit().expect("room");
        let request = Classify { texts, cut: Cut::End };
        let scores = engine.classify_in(Lane::Interactive, &mut held, request).await;
        return scores.expect("it classifies");
    }
    let inputs = cases.iter().map(|case| Input::Text(case.text.clone())).collect();
    engine.embed(Request { inputs, ..Request::default() }).await.expect("it embeds").vectors
}

/// Alone, each with the one before it, and all together. Of a model that classifies these are numbers of labels, of pairs beside
/// texts alone.
async fn vectors_are_alike(name: &str) {
    let fake = Fake::begin(31, 0);
    let model = Model::open(name);
    let cases = model.cases();
    // What is empty is refused where texts are classified.
    let classifies = model.recipe.labels.is_some();
    let cases: Vec<_> =
        cases.iter().filter(|case| !classifies || case.pair.is_some() || !case.text.is_empty()).collect();
    let engine = model.engine(&fake, cases[0].vector.len());
    for case in &cases {
        assert_alike("alone", case, &vectors(&engine, &[case]).await[0]);
    }
    for both in cases.windows(2) {
        let vectors = vectors(&engine, both).await;
        both.iter().zip(&vectors).for_each(|(case, vector)| assert_alike("with another", case, vector));
    }
    let together = vectors(&engine, &cases).await;
    cases.iter().zip(&together).for_each(|(case, vector)| assert_alike("together", case, vector));
    drop(engine);
    assert_eq!(fake.violations(), 0);
}

fn only_attention_is_missing(name: &str) {
    let Model { recipe, weights, .. } = Model::open(name);
    for precision in [Precision::Float32, Precision::Float16] {
        let graph = packed::export(&Recipe { precision, ..recipe.clone() }, &weights);
        let (graph, _) = graph.expect("a graph for GPUs");
        attention::assert_nothing_else_is_missing(&format!("{name} in {precision:?}"), &graph);
    }
}

macro_rules! models {
    ($($test:ident: $check:ident($folder:literal),)*) => {
        $(#[tokio::test]
        async fn $test() {
            $check($folder).await;
        })*

        #[test]
        fn onnxruntime_knows_the_operators_of_each_model_and_finds_the_types_right() {
            [$($folder),*].into_iter().for_each(only_attention_is_missing);
        }
    };
}

models! {
    bert: vectors_are_alike("bert"),
    bert_classifier: vectors_are_alike("bert-classifier"),
    distilbert_classifier: vectors_are_alike("distilbert-classifier"),
    modernbert: vectors_are_alike("modernbert"),
    modernbert_classifier: vectors_are_alike("modernbert-classifier"),
    mpnet: vectors_are_alike("mpnet"),
    nomic_bert: vectors_are_alike("nomic_bert"),
    qwen3: vectors_are_alike("qwen3"),
    roberta: vectors_are_alike("roberta"),
    xlm_roberta: vectors_are_alike("xlm-roberta"),
    xlm_roberta_classifier: vectors_are_alike("xlm-roberta-classifier"),
}

#[test]
fn what_has_no_operators_on_gpus_is_refused_by_name() {
    // It pools by the largest of each number.
    let Model { recipe, weights, .. } = Model::open("distilbert");
    let error = packed::export(&recipe, &weights).expect_err("there are none");
    let ModelError::Unsupported(why) = &error else { panic!("{error}") };
    assert!(why.contains("pooling") && why.contains("GPU"), "{why}");
}

#[test]
fn who_sees_whom_is_for_inputs_whose_table_of_that_is_not_too_large() {
    for name in ["modernbert", "qwen3"] {
        let Model { recipe, weights, .. } = Model::open(name);
        for (max_tokens, fits) in [(8192, true), (8193, false)] {
            let made = packed::export(&Recipe { max_tokens, ..recipe.clone() }, &weights);
            let refused = made.err().map(|e| e.to_string());
            assert_eq!(refused.is_none(), fits, "{name}: {refused:?}");
            let told = |why: String| ["8193", "GPU", "--max-tokens"].iter().all(|word| why.contains(word));
            assert!(fits || refused.is_some_and(told), "{name}");
        }
    }
}
