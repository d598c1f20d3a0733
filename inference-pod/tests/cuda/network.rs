//! A whole network through the pipeline. Its kernels are those that ONNX Runtime has for CPUs, on the stand-in's memory; all
//! else is what a GPU is given: the graph, the packed batch, where its tensors lie, and what comes back.
#![allow(unsafe_code, reason = "the stand-in is asked to wait, which the pipeline never does")]

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use inference_pod::{
    backend::{
        Backend, RunError, Took,
        onnx::{Graph, Onnx, Output, load_library},
    },
    batch::{
        Batcher,
        row::{Row, Wanted},
    },
    cuda::{
        driver::{Regions, Streams},
        fault::Fault,
        network::{Network, OnGpu, slot_size},
        pack::Packed,
        pipeline::{Compute, Settings, start},
        prepare::{Known, Plan, PrepareError, Prepared, prepare, tolerance},
        probe::probe,
    },
    engine::Engine,
    export::{self, Exported, packed},
    limits::Limits,
    metrics::Metrics,
    model::{Overrides, Precision, Recipe, recipe::Texts, weights::Weights},
    pod::{Pod, Serving},
    pooling::Pooling,
    tokenise::Tokeniser,
};
use kembed_queue::{
    Budget, Lengths, Rate,
    wire::{Lane, Space},
};
use kembed_runtime::traces::Span;
use ort::memory::MemoryInfo;
use prometheus_client::{encoding::text::encode, registry::Registry};

use super::{PATIENCE, attention, fake::Fake, support};

/// A network whose kernels are the CPU's: it must wait for what is copied in, for it computes at once.
pub struct AtOnce {
    network: Network,
    wait: unsafe extern "C" fn(usize) -> i32,
    stream: usize,
}

impl Compute for AtOnce {
    type Batch = Arc<Packed>;

    fn enqueue(&mut self, batch: &Arc<Packed>, regions: &Regions<'_>) -> Result<(), Fault> {
        // SAFETY: the stream is there.
        assert_eq!(unsafe { (self.wait)(self.stream) }, 0);
        self.network.enqueue(batch, regions)
    }
}

fn recipe(config: &str, pooling: Pooling) -> Recipe {
    let overrides = Overrides { pooling: Some(pooling), ..Overrides::default() };
    Recipe::read(Texts { config, ..Texts::default() }, &overrides).expect("a good recipe")
}

/// A network that gives so many numbers for each row, on the stand-in's memory.
pub fn at_once(fake: &Fake, streams: &Streams, graph: Exported, numbers: usize) -> AtOnce {
    let session = attention::session(graph);
    let network = Network::new(session, MemoryInfo::default(), numbers).expect("it can be bound");
    // SAFETY: that is its signature, as integers.
    let wait = *unsafe { fake.symbol("cuStreamSynchronize") };
    AtOnce { network, wait, stream: streams.compute().address() }
}

struct Both {
    on_cpu: Onnx,
    on_gpu: Vec<OnGpu<AtOnce>>,
    _folder: tempfile::TempDir,
}

impl Both {
    fn new(fake: &Fake, pooling: Pooling) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        support::write(folder.path(), &support::small_model());
        let recipe = recipe(support::CONFIG, pooling);
        let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("good weights");
        let exported = export::export(&recipe, &weights).expect("a graph for CPUs");
        let (packed, _) = packed::export(&recipe, &weights).expect("a graph for GPUs");
        let environment = load_library(&support::onnxruntime()).expect("the library loads");
        let on_cpu = Onnx::new(&environment, Graph::Made(exported), Output::Pooled(pooling), 0);
        let (device, streams) = fake.open();
        let compute = at_once(fake, &streams, packed, 8);
        let size = slot_size(8, 64, 16, pooling, 8).expect("it is known how");
        let workers = start(&device, streams, compute, Settings { slots: 2, size, patience: PATIENCE });
        let on_gpu = workers.expect("it starts").into_iter().map(|worker| OnGpu::new(worker, pooling, 8));
        Self { on_cpu: on_cpu.expect("a good graph"), on_gpu: on_gpu.collect(), _folder: folder }
    }
}

/// Rows of several lengths, in an order that depends on the seed.
fn rows(seed: usize) -> Vec<Row> {
    let length = |i: usize| [5, 1, 16, 3, 5, 9, 2, 16][(i + seed) % 8];
    (0..8 - seed % 3)
        .map(|i| Row::new((0..length(i)).map(|at| (i + at * seed) as u32 % 12).collect()))
        .collect()
}

#[test]
fn vectors_are_those_of_a_cpu_whatever_they_are_packed_with() {
    for pooling in
        [Pooling::Mean, Pooling::Cls, Pooling::LastToken, Pooling::MeanSqrtLen, Pooling::WeightedMean]
    {
        let fake = Fake::begin(11, 50);
        let mut both = Both::new(&fake, pooling);
        for seed in 0..6 {
            let rows = rows(seed);
            let rows: Vec<_> = rows.iter().collect();
            let worker = &mut both.on_gpu[seed % 2];
            let got = worker.run(&rows).expect("it runs");
            assert_eq!(got.len(), rows.len());
            for (row, got) in rows.iter().zip(got) {
                let alone = both.on_cpu.run(&[row]).expect("it runs");
                let far = alone[0].iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
                assert!(far < 1e-5, "{pooling:?}, {} tokens: {alone:?} and {got:?}", row.ids.len());
            }
        }
        drop(both);
        assert_eq!(fake.violations(), 0);
    }
}

/// Notes the lengths of each batch.
struct Noted<B>(B, Arc<Mutex<Vec<Vec<usize>>>>);

impl<B: Backend> Backend for Noted<B> {
    fn lengths(&self) -> Lengths {
        self.0.lengths()
    }

    fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
        self.1.lock().expect("nobody panicked").push(batch.iter().map(|row| row.ids.len()).collect());
        self.0.run(batch)
    }

    fn took(&mut self) -> Option<Took> {
        self.0.took()
    }
}

/// The vectors of one request, the lengths of the batches that were made of it, and the metrics of all that.
fn in_batches(
    backend: impl Backend + 'static,
    rows: &[Row],
) -> (Vec<Vec<f32>>, Vec<Vec<usize>>, Vec<String>) {
    let limits = Limits { batch: Budget { tokens: 64, rows: 8 }, ..Limits::new(1) };
    let batches = Arc::new(Mutex::new(Vec::new()));
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let backend = Box::new(Noted(backend, batches.clone()));
    let (batcher, _ended) =
        Batcher::start(vec![backend], Rate::default(), limits, metrics).expect("it starts");
    let now = Instant::now();
    let ran = batcher.submit(rows.to_vec(), Lane::Interactive, now + PATIENCE, now, Span::default());
    let ran = ran.expect("there is room").blocking_recv().expect("it is answered").expect("it runs");
    drop(batcher);
    let batches = batches.lock().expect("nobody panicked").clone();
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all");
    (ran.vectors, batches, text.lines().map(str::to_owned).collect())
}

#[test]
fn a_gpu_is_given_all_lengths_at_once_and_a_cpu_one_after_the_other() {
    let fake = Fake::begin(14, 0);
    let Both { on_cpu, mut on_gpu, _folder } = Both::new(&fake, Pooling::Mean);
    let lengths = [5, 1, 16, 3, 5, 1];
    let rows: Vec<_> =
        lengths.iter().enumerate().map(|(i, &length)| Row::new(vec![i as u32 + 1; length])).collect();
    let (of_gpu, batches, _) = in_batches(on_gpu.remove(0), &rows);
    assert_eq!(batches, [lengths], "in the order in which they came");
    let (of_cpu, batches, _) = in_batches(on_cpu, &rows);
    assert_eq!(batches, [vec![5, 5], vec![1, 1], vec![16], vec![3]]);
    for (a, b) in of_cpu.iter().zip(&of_gpu) {
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
        assert!(far < 1e-5, "{a:?} and {b:?}");
    }
    drop(on_gpu);
    assert_eq!(fake.violations(), 0);
}

/// The sum of a metric, by the beginning of its line.
fn sum(metrics: &[String], of: &str) -> Option<f64> {
    metrics.iter().find_map(|line| line.strip_prefix(of)?.trim().parse().ok())
}

#[test]
fn metrics_tell_the_time_of_the_device_and_that_on_the_wall() {
    let fake = Fake::begin(15, 0);
    let Both { on_cpu, mut on_gpu, _folder } = Both::new(&fake, Pooling::Mean);
    // By the device's own clock. No test takes so long.
    fake.takes(1_000_000., 0.);
    let start = Instant::now();
    let (_, _, metrics) = in_batches(on_gpu.remove(0), &[Row::new(vec![1, 2])]);
    let on_the_wall = start.elapsed().as_secs_f64();
    for (step, seconds) in [("copy_in", 1000.), ("compute", 0.), ("copy_out", 1000.)] {
        let line = format!("kembed_device_seconds_sum{{device=\"0\",step=\"{step}\"}}");
        assert_eq!(sum(&metrics, &line), Some(seconds), "{metrics:#?}");
    }
    for line in ["kembed_run_seconds_sum", "kembed_worker_busy_seconds_total{worker=\"0\"}"] {
        assert!(sum(&metrics, line).is_some_and(|seconds| seconds <= on_the_wall), "{metrics:#?}");
    }
    let (_, _, metrics) = in_batches(on_cpu, &[Row::new(vec![1, 2])]);
    assert!(metrics.iter().all(|line| !line.starts_with("kembed_device_")), "a CPU has no such clock");
}

#[test]
fn onnxruntime_knows_every_operator_and_finds_the_types_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    support::write(folder.path(), &support::small_model());
    let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("good weights");
    for (precision, pooling) in [
        (Precision::Float32, Pooling::Mean),
        (Precision::Float16, Pooling::Mean),
        (Precision::Float16, Pooling::Cls),
    ] {
        let recipe = Recipe { precision, ..recipe(support::CONFIG, pooling) };
        let (graph, _) = packed::export(&recipe, &weights).expect("a graph for GPUs");
        attention::assert_nothing_else_is_missing(&format!("{precision:?}"), &graph);
    }
}

#[test]
fn what_has_no_operators_on_gpus_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    support::write(folder.path(), &support::small_model());
    let weights = Weights::open(&[folder.path().join("model.safetensors")]).expect("good weights");
    let good = || recipe(support::CONFIG, Pooling::Mean);
    let other = support::CONFIG.replace("\"bert\"", "\"t5\"");
    for (recipe, word) in [
        (Recipe { pooling: Pooling::Max, ..good() }, "pooling"),
        (Recipe { precision: Precision::Int8, ..good() }, "int8"),
        (recipe(&other, Pooling::Mean), "t5"),
    ] {
        let error = packed::export(&recipe, &weights).expect_err("there are none").to_string();
        assert!(error.contains(word) && error.contains("GPU"), "{error}");
    }
}

#[test]
fn what_it_cannot_do_is_refused_and_the_next_batch_runs() {
    let fake = Fake::begin(12, 0);
    let mut both = Both::new(&fake, Pooling::Mean);
    let worker = &mut both.on_gpu[0];
    let whole = Row { wanted: Wanted::Tokens, ..Row::new(vec![1]) };
    assert!(matches!(worker.run(&[&whole]), Err(RunError::Failed(_))));
    assert_eq!(worker.run(&[&Row::new(vec![1, 2])]).map(|vectors| vectors.len()), Ok(1));
}

#[test]
fn faults_of_the_device_are_told_as_they_are() {
    let fake = Fake::begin(13, 0);
    let mut both = Both::new(&fake, Pooling::Mean);
    let (worker, row) = (&mut both.on_gpu[0], Row::new(vec![1, 2]));
    fake.fail("cuMemcpyHtoDAsync_v2", 0, 2, false);
    fake.fail("cuMemcpyHtoDAsync_v2", 0, 2, false);
    assert!(matches!(worker.run(&[&row]), Err(RunError::OutOfMemory(_))));
    assert!(worker.run(&[&row]).is_ok());
    fake.fail("cuEventSynchronize", 0, 719, true);
    let lost = worker.run(&[&row]).expect_err("it is lost");
    assert!(matches!(&lost, RunError::Lost(why) if why.contains("CUDA_ERROR_LAUNCH_FAILED")), "{lost}");
    assert!(matches!(both.on_gpu[1].run(&[&row]), Err(RunError::Lost(_))));
}

/// Prepares two devices of the stand-in, whose network has these weights. A CPU has the first ones.
fn prepared(
    fake: &Fake,
    weights_of_gpu: &[(&'static str, Vec<u8>)],
) -> Result<Prepared<AtOnce>, PrepareError> {
    let (right, theirs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    support::write(right.path(), &support::small_model());
    support::write(theirs.path(), weights_of_gpu);
    let recipe = recipe(support::CONFIG, Pooling::Mean);
    let open = |folder: &tempfile::TempDir| Weights::open(&[folder.path().join("model.safetensors")]);
    let (right, theirs) = (open(&right).expect("good weights"), open(&theirs).expect("good weights"));
    let environment = load_library(&support::onnxruntime()).expect("the library loads");
    let graph = Graph::Made(export::export(&recipe, &right).expect("a graph for CPUs"));
    let mut on_cpu = Onnx::new(&environment, graph, Output::Pooled(Pooling::Mean), 0).expect("a good graph");
    let mut known = |ids: Vec<u32>| {
        let row = Row::new(ids);
        Known { vector: on_cpu.run(&[&row]).expect("it runs").remove(0), row }
    };
    let known = [known((0..16).map(|i| i % 12).collect()), known(vec![1, 4, 2])];
    let plan = Plan {
        form: Pooling::Mean.into(),
        classifies: false,
        longest: 16,
        known: &known,
        precision: Precision::Float32,
    };
    let mut found = probe().expect("the stand-in has devices");
    found.devices.truncate(2);
    prepare(&found, &plan, |_, streams| {
        let (graph, _) = packed::export(&recipe, &theirs).map_err(|e| Fault::Refused(e.to_string()))?;
        Ok(at_once(fake, streams, graph, 8))
    })
}

#[test]
fn devices_that_compute_right_vectors_are_ready() {
    let fake = Fake::begin(21, 0);
    let mut ready = prepared(&fake, &support::small_model()).expect("they are ready");
    assert_eq!(ready.backends.len(), 2 * 3, "each has three batches in hand");
    assert!((16..=65_536).contains(&ready.tokens) && ready.rate > 0., "{} {}", ready.tokens, ready.rate);
    for device in &ready.devices {
        let seen = device.verification;
        assert_eq!((seen.texts, seen.tolerance, seen.passed), (2, tolerance(Precision::Float32), true));
        assert!(seen.least_cosine > seen.tolerance && seen.least_cosine <= 1., "{seen:?}");
    }
    // Up to 1024 tokens there are 40 sizes of batches, and two of the 16 tokens of a row.
    assert!(fake.copies_in() > 2 * 42, "both ran each: {}", fake.copies_in());
    for backend in &mut ready.backends {
        assert_eq!(backend.run(&[&Row::new(vec![1, 2])]).map(|vectors| vectors[0].len()), Ok(8));
    }
    drop(ready);
    assert_eq!((fake.violations(), fake.alive()), (0, 0));
}

/// A pod whose network runs on the devices of the stand-in.
fn pod_on(ready: Prepared<AtOnce>) -> Arc<Pod> {
    let limits = support::limits();
    let pod = Arc::new(Pod::new(support::identity(), limits));
    let backends = ready.backends.into_iter().map(|backend| Box::new(backend) as Box<dyn Backend>);
    let started = Batcher::start(backends.collect(), Rate::default(), limits, pod.metrics.clone());
    let (batcher, _) = started.expect("threads");
    let recipe = recipe(support::CONFIG, Pooling::Mean);
    let tokeniser = Tokeniser::new(support::TOKENIZER.as_bytes(), 16, false).expect("a good tokenizer");
    let engine = Engine::new(recipe, tokeniser, batcher, 8, limits, pod.metrics.clone());
    let space = Space { digest: support::DIGEST.into(), revision: None, dimension: 8, max_tokens: 16 };
    pod.serve(Serving { engine: engine.without_tokens(), space, devices: ready.devices });
    pod
}

#[tokio::test]
async fn a_pod_tells_what_it_computes_on_and_why_that_may_be_trusted() {
    let fake = Fake::begin(24, 0);
    let pod = pod_on(prepared(&fake, &support::small_model()).expect("they are ready"));
    let answer = support::embed(&pod, r#"{"input": "a b"}"#).await;
    let vector = answer.json()["data"][0]["embedding"].as_array().map(Vec::len);
    assert_eq!((answer.status.as_u16(), vector), (200, Some(8)), "{}", answer.text);
    let info = support::get(&pod, "/info").await.json();
    for (ordinal, device) in info["devices"].as_array().expect("they are told").iter().enumerate() {
        assert_eq!(device["name"], format!("Stand-in {ordinal}"));
        assert_eq!(device["compute_capability"], "9.0");
        assert_eq!(device["memory_bytes"], 1u64 << 30);
        assert_eq!(device["cuda_version"], "13.0");
        assert_eq!(device["precision"], "float32");
        let seen = &device["verification"];
        assert_eq!((&seen["texts"], &seen["passed"]), (&2.into(), &true.into()), "{seen}");
        let (least, right) = (seen["least_cosine"].as_f64(), seen["tolerance"].as_f64());
        assert!(right == Some(0.9999) && least >= right, "{seen}");
    }
    assert_eq!(info["devices"].as_array().map(Vec::len), Some(2));
    drop(pod);
}

#[test]
fn a_device_that_computes_other_vectors_is_not_used() {
    let fake = Fake::begin(22, 0);
    let mut model = support::small_model();
    let mut tensors = support::tensors(0);
    let word = tensors.get_mut("encoder.layer.0.output.dense.bias").expect("there is one");
    word.1[0] += 3.;
    model.retain(|(name, _)| *name != "model.safetensors");
    model.push(("model.safetensors", support::safetensors(&tensors)));
    let error = prepared(&fake, &model).err().expect("the vectors are wrong");
    assert!(matches!(error, PrepareError::Wrong { cosine, .. } if cosine < 0.9999), "{error}");
    assert!(error.to_string().starts_with("Stand-in 0 computes wrong vectors"), "{error}");
    assert_eq!((fake.violations(), fake.alive()), (0, 0));
}

#[test]
fn a_device_that_fails_when_it_is_tried_is_not_used() {
    let fake = Fake::begin(23, 0);
    fake.fail("cuEventSynchronize", 2, 719, true);
    let error = prepared(&fake, &support::small_model()).err().expect("it fails");
    assert!(matches!(error, PrepareError::Run(RunError::Lost(_))), "{error}");
    assert_eq!(fake.violations(), 0);
}
