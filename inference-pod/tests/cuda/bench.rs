//! What benches/device is made of, as far as that goes without a GPU.

#[path = "../../benches/device/report.rs"]
mod report;
#[path = "../../benches/device/saturate.rs"]
mod saturate;
#[path = "../../benches/device/shape.rs"]
mod shape;
#[allow(dead_code, reason = "no Python is run here")]
#[path = "../../benches/device/torch.rs"]
mod torch;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use inference_pod::{
    cuda::{
        driver::Regions,
        fault::Fault,
        network::{OnGpu, slot_size},
        pack::Packed,
        pipeline::{Compute, Settings, start},
    },
    export::packed,
    model::{Overrides, Precision, Recipe, recipe::Texts, weights::Weights},
    pooling::Pooling,
    tokenise::Tokeniser,
};

use self::{
    report::{About, HEAD, Peak, Product, Report, Row},
    saturate::saturate,
    shape::{SHAPES, Shape},
    torch::Torch,
};
use super::{
    PATIENCE,
    fake::{Fake, Twice},
};

/// The stand-in's network in the place of one that takes packed batches.
struct Packing(Twice);

impl Compute for Packing {
    type Batch = Arc<Packed>;

    fn enqueue(&mut self, _: &Arc<Packed>, regions: &Regions<'_>) -> Result<(), Fault> {
        self.0.enqueue(&(), regions)
    }
}

#[test]
fn a_saturated_pipeline_becomes_a_line_of_the_table() {
    let fake = Fake::begin(11, 50);
    // So that it computes a third of the time: each batch waits for what is copied in.
    fake.takes(3., 1.);
    let (device, streams) = fake.open();
    let network = Packing(fake.network(&streams));
    let size = slot_size(4, 64, 16, Pooling::Mean, 8).expect("it is known how");
    let workers = start(&device, streams, network, Settings { slots: 3, size, patience: PATIENCE });
    let workers = workers.expect("it starts").into_iter();
    let mut workers: Vec<_> = workers.map(|worker| OnGpu::new(worker, Pooling::Mean, 8)).collect();
    let before = fake.synchronising();
    // One batch of sixteen is timed, and tells what was idle if another one was there when it came: that may be rare here.
    let (mut saturate, deadline) = (
        || saturate(&mut workers, (4, 16), Duration::ZERO, Duration::from_millis(100)),
        Instant::now() + PATIENCE,
    );
    let rate = loop {
        let rate = saturate().expect("the stand-in computes");
        if rate.idle.is_some() || Instant::now() > deadline {
            break rate;
        }
    };
    assert_eq!(rate.batch, 64);
    assert!(rate.tokens_per_second > 0., "{rate:?}");
    assert_eq!((fake.violations(), fake.synchronising()), (0, before), "measuring waits for nothing");
    drop(workers);

    let shape = &SHAPES[0];
    assert!(rate.idle.is_some_and(|part| (part - 2. / 3.).abs() < 1e-3), "{rate:?}");
    let (length, flops) = (16, shape.flops_of_token(16));
    let peak = Peak { square: Some(1e15), own: None };
    let row = Row {
        shape: shape.name,
        length,
        batch: 64,
        tokens_per_second: rate.tokens_per_second,
        flops,
        peak,
        idle: rate.idle,
        http: None,
        torch: None,
    };
    let product = Product {
        name: "the peak".into(),
        shape: [8192; 3],
        flops_per_second: Err("no libcublas.so.13".into()),
    };
    let about = About { device: "Stand-in 0".into(), ..About::default() };
    let report = Report { about, products: vec![product], rows: vec![row], latencies: Vec::new() };
    let text = report.markdown();
    assert!(text.starts_with("Stand-in 0 (compute capability") && text.contains(HEAD), "{text}");
    let columns = |line: &str| line.matches('|').count();
    let line =
        text.lines().find(|line| line.starts_with("| bert-base, 16 tokens | 64 |")).expect("there is one");
    assert_eq!(columns(line), columns(HEAD.lines().next().expect("a line")));
    assert!(text.contains("| the peak | 8192 x 8192 x 8192 | – (no libcublas.so.13) |"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("it is JSON");
    assert_eq!(json["loads"][0]["http"], serde_json::Value::Null);
    assert_eq!(json["products"][0]["flopsPerSecond"], serde_json::Value::Null);
}

/// As published: about 170 million a token short, 189 million at 512.
#[test]
fn operations_are_counted_as_others_count_them() {
    let [bert, minilm] = SHAPES;
    assert_eq!(bert.flops_of_token(0), 169_869_312.);
    assert_eq!(bert.flops_of_token(512), 188_743_680.);
    // Half as many layers, each with matrices of a quarter of the numbers.
    assert_eq!(minilm.flops_of_token(0), bert.flops_of_token(0) / 8.);
    for shape in SHAPES {
        let products = shape.products(1000).into_iter();
        let of_layer: f64 = products
            .map(|(times, [rows, columns, between])| 2. * (times * rows * columns * between) as f64)
            .sum();
        assert_eq!(shape.layers as f64 * of_layer / 1000., shape.flops_of_token(0));
    }
}

/// What is written is a model: it becomes a graph, and its tokenizer makes one token of a word.
#[test]
fn a_shape_becomes_a_model() {
    let shape = Shape { hidden: 24, inner: 48, vocabulary: 60, positions: 16, layers: 2, ..SHAPES[1] };
    let folder = tempfile::tempdir().expect("a temporary folder");
    shape.write(folder.path(), &["cat", "dog"]).expect("it can be written");
    let config = std::fs::read_to_string(folder.path().join("config.json")).expect("it was written");
    let overrides = Overrides { precision: Precision::Float16, ..Overrides::default() };
    let recipe =
        Recipe::read(Texts { config: &config, ..Texts::default() }, &overrides).expect("a good file");
    assert_eq!(recipe.pooling, Pooling::Mean);
    let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("good weights");
    packed::export(&recipe, &weights).expect("a graph for GPUs");
    let tokenizer = std::fs::read(folder.path().join("tokenizer.json")).expect("it was written");
    let tokeniser = Tokeniser::new(&tokenizer, 16, false).expect("a good file");
    assert_eq!(tokeniser.ids("", "cat dog cat").expect("plain words"), [2, 5, 6, 5, 3]);
}

#[test]
fn what_pytorch_says_is_read_and_its_absence_told() {
    let said = "{\"versions\": \"torch 2.9\"}\nnoise\n{\"length\": 16, \"tokensPerSecond\": 5e5}\n";
    let torch = Torch::read(said, "");
    assert_eq!((torch.about.as_str(), torch.tokens_per_second.get(&16)), ("torch 2.9", Some(&5e5)));
    assert_eq!(
        Torch::read("{\"absent\": \"No module named 'torch'\"}", "").about,
        "absent: No module named 'torch'"
    );
    assert_eq!(Torch::read("", "Traceback\nRuntimeError: no").about, "failed: RuntimeError: no");
}
