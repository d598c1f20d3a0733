//! Small models of each architecture, made by tests/golden/make.py, all the way from their files: their vectors are
//! those of the reference implementation.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use inference_pod::{
    config::LoadConfig,
    engine::{Engine, Input, Request},
    limits::Limits,
    load::load,
    model::Overrides,
    pod::{Pod, Serving},
    source::{Access, Location, Retry},
};
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
    input_ids: Vec<u32>,
    vector: Vec<f32>,
}

fn golden(model: &str) -> (PathBuf, Golden) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model);
    let text = fs::read_to_string(folder.join("golden.json")).expect("it can be read");
    (folder, serde_json::from_str(&text).expect("a good file"))
}

async fn serving(folder: PathBuf) -> Serving {
    let access = Access {
        cache: "unused".into(),
        hub: "http://unused".into(),
        hub_token: None,
        retry: Retry::default(),
    };
    let config = LoadConfig {
        location: Location::Folder(folder),
        file: None,
        access,
        overrides: Overrides::default(),
        onnxruntime: support::onnxruntime(),
    };
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
async fn check(model: &str) {
    let (folder, Golden { limit, cases }) = golden(model);
    let Serving { engine, space } = serving(folder).await;
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

macro_rules! models {
    ($($test:ident: $folder:literal,)*) => {
        $(#[tokio::test]
        async fn $test() {
            check($folder).await;
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
    bert: "bert",
    dense: "dense",
    distilbert: "distilbert",
    modernbert: "modernbert",
    mpnet: "mpnet",
    nomic_bert: "nomic_bert",
    qwen3: "qwen3",
    roberta: "roberta",
    sharded: "sharded",
    xlm_roberta: "xlm-roberta",
}
