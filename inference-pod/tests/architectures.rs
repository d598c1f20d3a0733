//! Small models of each architecture, made by tests/golden/make.py, all the way from their files: their vectors, or what
//! they classify texts as, are those of the reference implementation.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use inference_pod::{
    engine::{self, Classify, EmbedError, Engine, Input, Request, Sequence},
    export::export,
    limits::Limits,
    load::load,
    model::{Numbers, Overrides, Recipe, recipe::Texts, weights::Weights},
    pod::{Pod, Serving},
    tokenise::Cut,
};
use kembed_queue::wire::Lane;
use serde::Deserialize;

/// What two numbers of vectors may differ by. Vectors that are not normalised have numbers of about one.
const ALIKE: f32 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    limit: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// The second text, where there are two.
    pair: Option<String>,
    input_ids: Vec<u32>,
    vector: Vec<f32>,
    /// The vector of the graph in eight bits, where there is one.
    #[serde(default)]
    quantized: Vec<f32>,
}

fn golden(model: &str) -> (PathBuf, Golden) {
    let folder = support::model(model);
    let golden = support::golden(&folder);
    (folder, golden)
}

async fn serving(folder: PathBuf) -> Serving {
    serving_file(folder, None).await
}

async fn serving_file(folder: PathBuf, file: Option<&str>) -> Serving {
    let config = support::from_folder(&folder, file, Overrides::default());
    load(config, 1, &Pod::new(support::identity(), Limits::new(1))).await.expect("the model loads").0
}

async fn vectors(engine: &Engine, inputs: Vec<Input>) -> Vec<Vec<f32>> {
    let request = Request { inputs, ..Request::default() };
    engine.embed(request).await.expect("it embeds").vectors
}

#[track_caller]
fn assert_alike(how: &str, case: &Case, vector: &[f32]) {
    assert_eq!(vector.len(), case.vector.len());
    let worst = vector.iter().zip(&case.vector).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    let (text, tokens) = (&case.text, case.input_ids.len());
    assert!(worst < ALIKE, "{how}, {tokens} tokens of {text:?}: {worst}\n{vector:?}\n{:?}", case.vector);
}

/// Alone, with all others, with each other one (and so with any amount of padding), and as token ids.
async fn vectors_are_alike(model: &str) {
    let (folder, Golden { limit, cases }) = golden(model);
    let Serving { engine, space, .. } = serving(folder).await;
    assert_eq!(space.max_tokens, limit);
    let text = |case: &Case| Input::Text(case.text.clone());
    let ids = |case: &Case| Input::Tokens(case.input_ids.clone());
    for case in &cases {
        assert_alike("alone", case, &vectors(&engine, vec![text(case)]).await[0]);
        for other in &cases {
            let pair = vectors(&engine, vec![ids(case), ids(other)]).await;
            assert_alike("in a pair", case, &pair[0]);
        }
    }
    for inputs in [cases.iter().map(text).collect(), cases.iter().map(ids).collect()] {
        for (case, vector) in cases.iter().zip(&vectors(&engine, inputs).await) {
            assert_alike("together", case, vector);
        }
    }
}

async fn scores(engine: &Engine, sequences: Vec<Sequence>) -> Vec<Vec<f32>> {
    let request = Classify { texts: engine::Texts::Each(sequences), cut: Cut::End };
    engine
        .classify_in(Lane::Interactive, &mut engine.admit().expect("room"), request)
        .await
        .expect("it classifies")
}

/// Alone, with all others, and with each other one: pairs beside texts alone, with any amount of padding.
async fn scores_are_alike(model: &str) {
    let (folder, Golden { limit, cases }) = golden(model);
    let Serving { engine, space, .. } = serving(folder).await;
    let labels = engine.labels().expect("it classifies").len();
    assert_eq!((space.max_tokens, space.dimension as usize), (limit, labels));
    // The pod refuses what is empty.
    let cases: Vec<_> = cases.iter().filter(|case| case.pair.is_some() || !case.text.is_empty()).collect();
    assert!(cases.iter().filter(|case| case.pair.is_some()).count() > 4);
    let sequence = |case: &Case| match &case.pair {
        None => Sequence::One(case.text.clone()),
        Some(pair) => Sequence::Pair(case.text.clone(), pair.clone()),
    };
    for case in &cases {
        assert_alike("alone", case, &scores(&engine, vec![sequence(case)]).await[0]);
        for other in &cases {
            let both = scores(&engine, vec![sequence(case), sequence(other)]).await;
            assert_alike("with another", case, &both[0]);
        }
    }
    let together = scores(&engine, cases.iter().map(|case| sequence(case)).collect()).await;
    cases.iter().zip(&together).for_each(|(case, scores)| assert_alike("together", case, scores));
    ranks_are_alike(&engine, &cases).await;
}

/// Pairs are the same when their first text is a query; only models of one label rank.
async fn ranks_are_alike(engine: &Engine, cases: &[&Case]) {
    for case in cases {
        let Some(pair) = &case.pair else { continue };
        let texts =
            engine::Texts::Against { query: case.text.clone(), texts: vec!["a".into(), pair.clone()] };
        let ranked = engine
            .classify_in(
                Lane::Interactive,
                &mut engine.admit().expect("room"),
                Classify { texts, cut: Cut::End },
            )
            .await;
        match case.vector.len() {
            1 => assert_alike("ranked", case, &ranked.expect("it ranks")[1]),
            _ => assert_eq!(ranked.map_err(|e| e.to_string()), Err("model is not a re-ranker model".into())),
        }
    }
}

#[tokio::test]
async fn the_vectors_of_all_tokens_are_what_is_pooled() {
    let (folder, Golden { cases, .. }) = golden("xlm-roberta");
    let Serving { engine, .. } = serving(folder).await;
    let inputs = || cases.iter().map(|case| Input::Text(case.text.clone())).collect();
    let mut held = engine.admit().expect("room");
    let request = Request { inputs: inputs(), ..Request::default() };
    let tokens = engine.embed_every_token_in(Lane::Bulk, &mut held, request).await.expect("it embeds");
    for (case, tokens) in cases.iter().zip(&tokens) {
        assert_eq!(tokens.iter().count(), case.input_ids.len());
        let mean = |i| tokens.iter().map(|token| token[i]).sum::<f32>() / case.input_ids.len() as f32;
        let mean: Vec<_> = (0..case.vector.len()).map(mean).collect();
        assert_alike("pooled here", case, &mean);
    }
}

#[tokio::test]
async fn dense_layers_are_for_pooled_vectors_alone() {
    let (folder, _) = golden("dense");
    let Serving { engine, space, .. } = serving(folder).await;
    let mut held = engine.admit().expect("room");
    let request = Request { inputs: vec![Input::Text("a".into())], ..Request::default() };
    let tokens = engine.embed_every_token_in(Lane::Bulk, &mut held, request).await.expect("it embeds");
    let sizes: Vec<_> = tokens[0].iter().map(<[f32]>::len).collect();
    assert_eq!((sizes, space.dimension), (vec![32; 3], 16));
}

#[tokio::test]
async fn a_shipped_graph_classifies_pairs_too() {
    let (model, Golden { cases, .. }) = golden("bert-classifier");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        fs::copy(model.join(file), folder.path().join(file)).expect("it can be copied");
    }
    let config = fs::read_to_string(model.join("config.json")).expect("it can be read");
    let texts = Texts { config: &config, ..Texts::default() };
    let recipe = Recipe::read(texts, &Overrides::default()).expect("a good file");
    let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("good weights");
    let exported = export(&recipe, &weights).expect("it can be exported");
    fs::write(folder.path().join("model.onnx"), exported.onnx).expect("it can be written");

    let Serving { engine, .. } = serving_file(folder.path().into(), Some("model.onnx")).await;
    let pairs = cases.iter().filter_map(|case| Some((case, case.pair.clone()?)));
    let (pairs, inputs): (Vec<_>, Vec<_>) =
        pairs.map(|(case, pair)| (case, Sequence::Pair(case.text.clone(), pair))).unzip();
    let scores = scores(&engine, inputs).await;
    pairs.iter().zip(&scores).for_each(|(case, scores)| assert_alike("shipped", case, scores));
}

/// One text at a time: such a graph's vectors depend on what they are batched with.
#[tokio::test]
async fn a_graph_that_was_shipped_in_eight_bits_is_run_as_it_was_made() {
    let (folder, Golden { cases, .. }) = golden("shipped");
    let plain = serving_file(folder.clone(), Some("onnx/model.onnx")).await.engine;
    let Serving { engine, .. } = serving_file(folder, Some("onnx/model_quantized.onnx")).await;
    assert_eq!((plain.numbers(), engine.numbers()), (Numbers::Float32, Numbers::Int8));
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    for case in &cases {
        let vector = &vectors(&engine, vec![Input::Text(case.text.clone())]).await[0];
        let (own, other) = (cosine(vector, &case.quantized), cosine(vector, &case.vector));
        // A number that lies between two steps may be rounded the other way on another processor.
        assert!(own > 0.999_995 && other < 0.999_99, "{:?}: {own}, {other}", case.text);
    }
}

#[tokio::test]
async fn a_model_does_what_it_was_made_for() {
    let classifier = serving(golden("bert-classifier").0).await.engine;
    let request = || Request { inputs: vec![Input::Text("a".into())], ..Request::default() };
    let refused = |e: EmbedError| e.to_string();
    assert_eq!(
        classifier.embed(request()).await.map_err(refused),
        Err("model is not an embedding model".into())
    );
    let embedder = serving(golden("bert").0).await.engine;
    let classify = Classify { texts: engine::Texts::Each(vec![Sequence::One("a".into())]), cut: Cut::End };
    let answer =
        embedder.classify_in(Lane::Interactive, &mut embedder.admit().expect("room"), classify).await;
    assert_eq!(answer.map_err(refused), Err("model is not a classifier model".into()));
}

macro_rules! models {
    ($($test:ident: $check:ident($folder:literal),)*) => {
        $(#[tokio::test]
        async fn $test() {
            $check($folder).await;
        })*

        #[test]
        fn every_model_is_checked() {
            let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let folders = fs::read_dir(golden).expect("it can be listed").filter_map(Result::ok);
            let mut found: Vec<_> = folders.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            found.sort();
            let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
            assert_eq!(names, [$($folder),*]);
        }
    };
}

models! {
    bert: vectors_are_alike("bert"),
    bert_classifier: scores_are_alike("bert-classifier"),
    dense: vectors_are_alike("dense"),
    distilbert: vectors_are_alike("distilbert"),
    distilbert_classifier: scores_are_alike("distilbert-classifier"),
    modernbert: vectors_are_alike("modernbert"),
    modernbert_classifier: scores_are_alike("modernbert-classifier"),
    mpnet: vectors_are_alike("mpnet"),
    nomic_bert: vectors_are_alike("nomic_bert"),
    qwen3: vectors_are_alike("qwen3"),
    roberta: vectors_are_alike("roberta"),
    sharded: vectors_are_alike("sharded"),
    shipped: vectors_are_alike("shipped"),
    xlm_roberta: vectors_are_alike("xlm-roberta"),
    xlm_roberta_classifier: scores_are_alike("xlm-roberta-classifier"),
}
