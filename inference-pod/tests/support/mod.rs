//! What the tests share: a pod with a stub for a network, and a model small enough to be made on the spot.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use inference_pod::{
    api,
    backend::{Backend, RunError},
    batch::{
        Batcher, Ended,
        row::{Row, Wanted},
    },
    config::LoadConfig,
    engine::Engine,
    limits::Limits,
    model::{Overrides, Recipe, recipe::Texts},
    pod::{Identity, Pod, Serving},
    source::{Access, Location, Retry, Variables},
    tokenise::Tokeniser,
};
use kembed_queue::{Bounds, Budget, Rate, wire::Space};
use safetensors::{Dtype, tensor::TensorView};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;
use tower::ServiceExt;

/// A file that the build fetches.
pub fn build(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.build").join(name);
    assert!(path.exists(), "{} is missing: run `make deps` first", path.display());
    path
}

/// The library that runs networks.
pub fn onnxruntime() -> PathBuf {
    build("onnxruntime/libonnxruntime.so")
}

/// The folder of a small model that tests/golden/make.py has made.
pub fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What a pod reads of such a model with this configuration, which need not be its own.
pub fn recipe(model: &Path, config: &str, overrides: &Overrides) -> Recipe {
    let text = |file: &str| fs::read_to_string(model.join(file)).ok();
    let (modules, tokenizer_config) = (text("modules.json"), text("tokenizer_config.json"));
    let pooling = "1_Pooling/config.json";
    let steps: Vec<_> = text(pooling).map(|text| (pooling.to_owned(), text)).into_iter().collect();
    let texts = Texts {
        config,
        modules: modules.as_deref(),
        steps: &steps,
        tokenizer_config: tokenizer_config.as_deref(),
        ..Texts::default()
    };
    Recipe::read(texts, overrides).expect("a good recipe")
}

/// What the reference implementation computes of the model in such a folder.
pub fn golden<T: DeserializeOwned>(model: &Path) -> T {
    let text = fs::read_to_string(model.join("golden.json")).expect("it can be read");
    serde_json::from_str(&text).expect("a good file")
}

/// How a model in a folder is loaded, from which of its graphs if it has several.
pub fn from_folder(folder: &Path, file: Option<&str>, overrides: Overrides) -> LoadConfig {
    LoadConfig {
        location: Location::Folder(folder.to_owned()),
        file: file.map(ToOwned::to_owned),
        access: Access {
            cache: "unused".into(),
            limit: None,
            hub: "http://unused".into(),
            hub_token: None,
            variables: Variables::default(),
            retry: Retry::default(),
        },
        overrides,
        onnxruntime: onnxruntime(),
        accelerator: None,
    }
}

/// Twelve words; every other word is unknown. `[CLS]` and `[SEP]` surround a text.
pub const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}, "decoder": null,
    "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3,
        "a": 4, "b": 5, "c": 6, "d": 7, "e": 8, "f": 9, "g": 10, "query:": 11}}}"#;

/// The sizes of the small model.
pub const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 12, "max_position_embeddings": 16,
    "type_vocab_size": 2, "pad_token_id": 0}"#;

/// The stub's vector of a text: how many tokens it has, the sum of their ids, and zero. A token of a second text counts a
/// thousand more. The vector of one token is its id, one, and zero.
pub struct Stub {
    /// How many of these numbers there are.
    pub numbers: usize,
    /// Told the rows of each batch before it is run.
    pub started: mpsc::Sender<usize>,
    /// What to do with each batch; once the sender is gone, answer.
    pub orders: mpsc::Receiver<Order>,
}

/// What a stub does with a batch.
pub enum Order {
    /// Answer.
    Answer,
    /// Fail.
    Fail,
    /// Say that there is not enough memory.
    FindNoMemory,
    /// Say that the device is lost.
    Lose,
    /// Panic.
    Panic,
}

impl Backend for Stub {
    fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
        // Tests that do not listen are none the worse.
        let _ = self.started.send(batch.len());
        match self.orders.recv().unwrap_or(Order::Answer) {
            Order::Fail => return Err(RunError::Failed("no".into())),
            Order::FindNoMemory => return Err(RunError::OutOfMemory("none left".into())),
            Order::Lose => return Err(RunError::Lost("gone".into())),
            Order::Panic => panic!("as ordered"),
            Order::Answer => {}
        }
        let vector = |row: &&Row| {
            let sum = row.ids.iter().sum::<u32>() + 1000 * row.types.iter().sum::<u32>();
            match row.wanted {
                Wanted::One => {
                    [row.ids.len() as f32, sum as f32, 0.].into_iter().take(self.numbers).collect()
                }
                Wanted::Tokens => row.ids.iter().flat_map(|&id| [id as f32, 1., 0.]).collect(),
            }
        };
        Ok(batch.iter().map(vector).collect())
    }
}

/// A pod in a test.
pub struct Tested {
    pub pod: Arc<Pod>,
    pub started: mpsc::Receiver<usize>,
    pub orders: mpsc::Sender<Order>,
    pub ended: oneshot::Receiver<Ended>,
}

/// Small limits.
pub fn limits() -> Limits {
    Limits {
        requests: 4,
        bytes: 64 << 20,
        body: 1000,
        inputs: 5,
        queue: Bounds { tokens: 40, items: 4 },
        batch: Budget { tokens: 40, rows: 4 },
        timeout: Duration::from_secs(120),
        threads: 1,
        tokenisers: 1,
    }
}

/// The names of a pod without a pinned or recorded space.
pub fn identity() -> Identity {
    Identity { model: "hf://a/b".into(), name: "b".into(), pinned: None, recorded: None }
}

/// The digest of a stub's space.
pub const DIGEST: &str = "sha256:1234";

/// A pod that serves a stub, which waits for orders.
pub fn waiting(limits: Limits, identity: Identity) -> Tested {
    stubbed(CONFIG, 3, limits, identity)
}

/// A pod whose stub classifies by this many labels, up to three, and answers at once.
pub fn classifying(labels: usize, limits: Limits) -> Arc<Pod> {
    let names: Vec<_> = ["bad", "good", "none"].into_iter().take(labels).enumerate().collect();
    let names: Vec<_> = names.iter().map(|(i, name)| format!(r#""{i}": "{name}""#)).collect();
    let class = r#"{"architectures": ["BertForSequenceClassification"], "id2label": {LABELS}, "#;
    let config = CONFIG.replacen('{', &class.replace("LABELS", &names.join(",")), 1);
    stubbed(&config, labels, limits, identity()).pod
}

/// A pod whose network pools by itself, and answers at once.
pub fn without_tokens() -> Arc<Pod> {
    stubbed_as(CONFIG, 3, limits(), identity(), Engine::without_tokens).pod
}

fn stubbed(config: &str, numbers: usize, limits: Limits, identity: Identity) -> Tested {
    stubbed_as(config, numbers, limits, identity, |engine| engine)
}

fn stubbed_as(
    config: &str,
    numbers: usize,
    limits: Limits,
    identity: Identity,
    shape: fn(Engine) -> Engine,
) -> Tested {
    let overrides = Overrides { query_prompt: Some("query: ".into()), ..Overrides::default() };
    let texts = Texts { config, ..Texts::default() };
    let recipe = Recipe::read(texts, &overrides).expect("a good recipe");
    let tokeniser = Tokeniser::new(TOKENIZER.as_bytes(), recipe.max_tokens, false).expect("a good tokenizer");
    let ((started, is_started), (orders, ordered)) = (mpsc::channel(), mpsc::channel());
    let pod = Arc::new(Pod::new(identity, limits));
    let stub = Box::new(Stub { numbers, started, orders: ordered });
    let started = Batcher::start(vec![stub], Rate::default(), limits, pod.metrics.clone());
    let (batcher, ended) = started.expect("a thread");
    let engine = shape(Engine::new(recipe, tokeniser, batcher, numbers, limits, pod.metrics.clone()));
    let dimension = numbers as u32;
    let space = Space { digest: DIGEST.into(), revision: Some("abc".into()), dimension, max_tokens: 16 };
    pod.serve(Serving { engine, space, devices: Vec::new() });
    Tested { pod, started: is_started, orders, ended }
}

/// A pod that serves a stub, which answers at once.
pub fn answering(limits: Limits, identity: Identity) -> Arc<Pod> {
    // Without the sender of orders the stub waits for none.
    waiting(limits, identity).pod
}

/// What a pod answered.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {:?}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("plain text"))
    }
}

/// Sends a request to a pod, without a network in between.
pub async fn send(pod: &Arc<Pod>, request: Request<Body>) -> Answer {
    let response = api::router(pod.clone()).oneshot(request).await.expect("the router never fails");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a whole body");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    Answer { status: parts.status, headers: parts.headers, text }
}

/// `GET`
pub async fn get(pod: &Arc<Pod>, path: &str) -> Answer {
    send(pod, Request::get(path).body(Body::empty()).expect("a good request")).await
}

/// `POST /v1/embeddings`
pub async fn embed(pod: &Arc<Pod>, body: impl Into<Body>) -> Answer {
    send(pod, Request::post("/v1/embeddings").body(body.into()).expect("a good request")).await
}

/// Numbers that look random and are the same each time.
fn numbers(seed: &mut u32, count: usize) -> Vec<f32> {
    let mut next = || {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// The tensors of the small model. `first` rows stand before that of the first position.
pub fn tensors(first: usize) -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    let mut tensors = HashMap::new();
    let seed = &mut 7;
    let mut add = |name: &str, shape: &[usize]| {
        tensors.insert(name.to_owned(), (shape.to_vec(), numbers(seed, shape.iter().product())));
    };
    add("embeddings.word_embeddings.weight", &[12, 8]);
    add("embeddings.position_embeddings.weight", &[16, 8]);
    add("embeddings.token_type_embeddings.weight", &[2, 8]);
    let norms = ["embeddings.LayerNorm"].map(String::from).into_iter();
    let layers = (0..2).map(|layer| format!("encoder.layer.{layer}."));
    for layer in layers.clone() {
        for part in
            ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
        {
            add(&format!("{layer}{part}.weight"), &[8, 8]);
            add(&format!("{layer}{part}.bias"), &[8]);
        }
        add(&format!("{layer}intermediate.dense.weight"), &[16, 8]);
        add(&format!("{layer}intermediate.dense.bias"), &[16]);
        add(&format!("{layer}output.dense.weight"), &[8, 16]);
        add(&format!("{layer}output.dense.bias"), &[8]);
    }
    let of_layers =
        layers.flat_map(|l| [format!("{l}attention.output.LayerNorm"), format!("{l}output.LayerNorm")]);
    for norm in norms.chain(of_layers) {
        add(&format!("{norm}.weight"), &[8]);
        add(&format!("{norm}.bias"), &[8]);
    }
    let positions = tensors.get_mut("embeddings.position_embeddings.weight").expect("it was added");
    let unused = vec![1e6; 8 * first];
    positions.0[0] += first;
    positions.1.splice(0..0, unused);
    tensors
}

/// Tensors as a file.
pub fn safetensors(tensors: &HashMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<u8> {
    let bytes: HashMap<_, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, x))| (name, x.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).expect("shape and data agree");
        (name.clone(), view)
    });
    safetensors::serialize(views.collect::<HashMap<_, _>>(), None).expect("it serialises")
}

/// The files of the small model, which normalises.
pub fn small_model() -> Vec<(&'static str, Vec<u8>)> {
    let modules = r#"[{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"},
        {"path": "2_Normalize", "type": "a.Normalize"}]"#;
    vec![
        ("config.json", CONFIG.into()),
        ("tokenizer.json", TOKENIZER.into()),
        ("modules.json", modules.into()),
        ("1_Pooling/config.json", r#"{"pooling_mode_mean_tokens": true}"#.into()),
        ("model.safetensors", safetensors(&tensors(0))),
    ]
}

/// Writes files into a folder.
pub fn write(folder: &Path, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("it can be made");
        fs::write(path, bytes).expect("it can be written");
    }
}
