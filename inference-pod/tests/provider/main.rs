//! ONNX Runtime's own code for GPUs, on a machine without one: its library and the pipeline are those of a pod, and CUDA's libraries do nothing
//! but to refuse what a device would refuse, and to count. So it is seen which operators it has for our graphs, which of its
//! kernels it takes, that it waits for nothing, and how much memory it asks for. What kernels compute is not.
//!
//! It needs what `scripts/deps cuda` fetches, 680 MB, and so is run by `make provider` alone.
#![allow(unsafe_code, reason = "the stand-ins are C libraries")]

#[path = "../cuda/fake.rs"]
#[allow(dead_code, reason = "that is for more than is tested here")]
mod fake;
mod large;
#[path = "../support/mod.rs"]
mod support;

use std::{ffi::CString, process::Command, sync::OnceLock, time::Duration};

use fake::Fake;
use inference_pod::{
    backend::{Backend, onnx::load_library},
    batch::row::Row,
    cuda::{
        network::{Network, OnGpu, slot_size},
        pipeline::{Settings, start},
        warm::{Largest, warm},
    },
    export::packed,
    model::{Precision, Recipe},
};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(300);

/// Rows and tokens of the largest batch.
const LARGEST: (usize, usize) = (1024, 65_536);

/// Opens a library so that one that is linked to it, by the name that it has inside, finds it.
fn preload(path: std::path::PathBuf) -> Library {
    // SAFETY: it is ours, or empty, and has no initialisers.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.expect("it can be opened")
}

/// Builds a stand-in, whose functions have the version that those of the real one have.
fn stand_in(source: &str, name: &str) -> Library {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("provider");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let (versions, made) = (folder.join(format!("{name}.map")), folder.join(name));
    std::fs::write(&versions, format!("{name} {{ *; }};")).expect("it can be written");
    let status = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-fPIC", "-shared", &format!("-Wl,-soname,{name}")])
        .arg(format!("-Wl,--version-script={}", versions.display()))
        .arg("-o")
        .arg(&made)
        .arg(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/provider")).join(source))
        .status()
        .expect("there is a C compiler, without which Rust does not link");
    assert!(status.success(), "{name} compiles");
    preload(made)
}

/// CUDA's libraries.
struct Cuda {
    runtime: Library,
}

impl Cuda {
    fn get() -> &'static Self {
        static CUDA: OnceLock<Cuda> = OnceLock::new();
        CUDA.get_or_init(|| {
            for name in ["libcuda.so.1", "libcublasLt.so.13", "libcublas.so.13"] {
                std::mem::forget(stand_in("nothing.c", name));
            }
            std::mem::forget(preload(support::build("cuda/onnxruntime/libcurand.so.10")));
            Self { runtime: stand_in("cudart.c", "libcudart.so.13") }
        })
    }

    fn reset(&self) {
        // SAFETY: that is its signature.
        unsafe {
            self.runtime.get::<unsafe extern "C" fn()>(b"fake_reset\0").expect("it is there")();
        }
    }

    /// Is another device from now on.
    fn set_capability(&self, (major, minor): (i32, i32)) {
        // SAFETY: that is its signature.
        unsafe {
            let set = self.runtime.get::<unsafe extern "C" fn(i32, i32)>(b"fake_capability\0");
            set.expect("it is there")(major, minor);
        }
    }

    fn count(&self, what: &str) -> u64 {
        let name = CString::new(format!("fake_{what}")).expect("a name");
        // SAFETY: that is their signature.
        unsafe {
            self.runtime.get::<unsafe extern "C" fn() -> u64>(name.as_bytes_with_nul()).expect("it is there")(
            )
        }
    }

    /// Kernels with this in their names that were started.
    fn launched(&self, part: &str) -> u64 {
        type Count = unsafe extern "C" fn(*const std::ffi::c_char) -> u64;
        let part = CString::new(part).expect("a name");
        // SAFETY: that is its signature, and the name lives until it returns.
        unsafe { self.runtime.get::<Count>(b"fake_launched\0").expect("it is there")(part.as_ptr()) }
    }

    /// Nothing was refused, waited for or copied since the last reset: only what the pipeline itself does.
    #[track_caller]
    fn assert_undisturbed(&self, what: &str) {
        let disturbed = ["refused", "waits", "copies"].map(|what| (what, self.count(what)));
        assert!(disturbed.iter().all(|(_, count)| *count == 0), "{what}: {disturbed:?}");
    }
}

/// A network on the stand-ins.
fn on_gpu(fake: &Fake, recipe: &Recipe, folder: &large::Folder) -> OnGpu {
    let weights = folder.weights();
    let environment = load_library(&support::build("cuda/onnxruntime/libonnxruntime.so"));
    let environment = environment.expect("the library loads");
    let (graph, form) = packed::export(recipe, &weights).expect("a graph for GPUs");
    let (device, streams) = fake.open();
    let numbers = recipe.labels.as_ref().map_or(folder.hidden, |labels| labels.len());
    let network = Network::on(&device, &streams, &environment, &graph, numbers);
    let network = network.unwrap_or_else(|e| panic!("{}: {}", folder.name, e.message()));
    let (rows, tokens) = LARGEST;
    let size = slot_size(rows, tokens, recipe.max_tokens, form, numbers).expect("it is known how");
    let workers = start(&device, streams, network, Settings { slots: 1, size, patience: PATIENCE });
    let worker = workers.expect("it starts").into_iter().next().expect("one");
    OnGpu::new(worker, form, numbers)
}

fn run(network: &mut OnGpu, lengths: &[usize]) {
    let rows: Vec<_> = lengths.iter().map(|&length| Row::new(vec![3; length])).collect();
    let vectors = network.run(&rows.iter().collect::<Vec<_>>()).expect("it runs");
    assert_eq!(vectors.len(), lengths.len());
}

const MODELS: [&str; 10] = [
    "bert",
    "bert-classifier",
    "distilbert-classifier",
    "modernbert",
    "modernbert-classifier",
    "mpnet",
    "nomic_bert",
    "qwen3",
    "roberta",
    "xlm-roberta-classifier",
];

#[test]
#[ignore = "it needs what `scripts/deps cuda` fetches: `make provider`"]
fn every_model_runs_on_a_gpu_alone_by_fused_attention_and_waits_for_nothing() {
    let (cuda, fake) = (Cuda::get(), Fake::begin(1, 0));
    let batches = [vec![1], vec![5, 3], vec![16; 3], vec![512; 4], vec![128; 512], vec![64; 1024]];
    let one_long: Vec<_> = [512].into_iter().chain([1; 1023]).collect();
    cuda.set_capability((9, 0));
    for (model, precision) in
        MODELS.into_iter().flat_map(|m| [Precision::Float16, Precision::Float32].map(|p| (m, p)))
    {
        // As small as those that another machine may be tried with, and as large as those that are used.
        for (hidden, heads) in [(32, 4), (768, 12)] {
            let folder = large::Folder::new(model, [hidden, 4 * hidden, heads, 514]);
            let mut network = on_gpu(&fake, &folder.recipe(512, precision), &folder);
            cuda.reset();
            batches.iter().chain([&one_long]).for_each(|lengths| run(&mut network, lengths));
            let what = format!("{model} in {precision:?} of {hidden}");
            cuda.assert_undisturbed(&what);
            let (flash, cutlass) =
                (cuda.launched("flash_fwd_kernel"), cuda.launched("attention_kernel_batched"));
            assert_eq!((flash + cutlass) % (batches.len() as u64 + 1), 0, "{what}: one a layer");
            assert!(flash + cutlass > 0 && (precision == Precision::Float32) <= (flash == 0), "{what}");
            assert_eq!(cuda.launched("Softmax"), 0, "{what}: all scores at once");
            let casts = cuda.launched("Cast");
            assert!(
                casts <= 4 * (batches.len() as u64 + 1),
                "{what}: weights are rounded once, and not by each of {casts}"
            );
        }
    }
}

/// What is refused by name, and what documentation says of it, until a version of ONNX Runtime has it.
#[test]
#[ignore = "it needs what `scripts/deps cuda` fetches: `make provider`"]
fn there_is_no_attention_between_packed_tokens_in_bfloat16() {
    let provider = support::build("cuda/onnxruntime/libonnxruntime_providers_cuda.so");
    let provider = std::fs::read(provider).expect("it can be read");
    // Classes are in it by their names.
    let has = |kernel: &[u8]| provider.windows(kernel.len()).any(|bytes| bytes == kernel);
    assert!(has(b"cuda24PackedMultiHeadAttentionINS_9MLFloat16E"));
    assert!(has(b"cuda19GroupQueryAttentionINS_8BFloat16E"), "it would be called so");
    assert!(!has(b"cuda24PackedMultiHeadAttentionINS_8BFloat16E"));
}

#[test]
#[ignore = "it needs what `scripts/deps cuda` fetches: `make provider`"]
fn older_and_smaller_gpus_run_all_of_it_too() {
    let (cuda, fake) = (Cuda::get(), Fake::begin(4, 0));
    // T4, A100, L4; each way in which models differ in their attention.
    let models = ["bert", "mpnet", "nomic_bert", "modernbert", "qwen3"];
    for (capability, model) in [(7, 5), (8, 0), (8, 9)].into_iter().flat_map(|c| models.map(|m| (c, m))) {
        cuda.set_capability(capability);
        let folder = large::Folder::new(model, [768, 3072, 12, 514]);
        let mut network = on_gpu(&fake, &folder.recipe(512, Precision::Float16), &folder);
        cuda.reset();
        [vec![1], vec![5, 3], vec![512; 4], vec![64; 1024]]
            .iter()
            .for_each(|lengths| run(&mut network, lengths));
        let what = format!("{model} on {capability:?}");
        cuda.assert_undisturbed(&what);
        let (flash, cutlass) = (cuda.launched("flash_fwd_kernel"), cuda.launched("attention_kernel_batched"));
        assert!(flash + cutlass > 0 && (capability.0 < 8) <= (flash == 0), "{what}");
        assert_eq!(cuda.launched("Softmax"), 0, "{what}: all scores at once");
    }
    cuda.set_capability((9, 0));
}

#[test]
#[ignore = "it needs what `scripts/deps cuda` fetches: `make provider`"]
fn after_the_warm_up_no_batch_asks_for_memory() {
    let (cuda, fake) = (Cuda::get(), Fake::begin(2, 0));
    for model in ["bert", "nomic_bert", "modernbert", "qwen3"] {
        let folder = large::Folder::new(model, [768, 3072, 12, 514]);
        let mut network = on_gpu(&fake, &folder.recipe(512, Precision::Float16), &folder);
        let (rows, tokens) = LARGEST;
        let warmed = warm(&mut network, Largest { tokens, rows, longest: 512 }, PATIENCE);
        assert_eq!(warmed, Ok(Some(tokens)));
        cuda.reset();
        let mut seed = 7usize;
        let mut next = |most: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % most + 1
        };
        for _ in 0..200 {
            let (rows, longest) = (next(rows), next(512));
            let mut left = tokens;
            let lengths = (0..rows).map(|_| next(longest)).take_while(|&length| {
                left = left.saturating_sub(length);
                left > 0
            });
            run(&mut network, &lengths.collect::<Vec<_>>());
        }
        cuda.assert_undisturbed(model);
        assert_eq!((model, cuda.count("allocations")), (model, 0));
    }
}

#[test]
#[ignore = "it needs what `scripts/deps cuda` fetches: `make provider`"]
fn one_long_row_among_many_short_ones_asks_for_little_more_than_they() {
    let (cuda, fake) = (Cuda::get(), Fake::begin(3, 0));
    // As BGE-M3 has it, but for its layers.
    let folder = large::Folder::new("xlm-roberta", [1024, 4096, 16, 8194]);
    let mut network = on_gpu(&fake, &folder.recipe(8192, Precision::Float16), &folder);
    cuda.reset();
    let lengths: Vec<_> = [8192].into_iter().chain([56; 1023]).collect();
    run(&mut network, &lengths);
    let gigabytes = cuda.count("allocated") as f64 / 1e9;
    assert!(gigabytes < 8., "{gigabytes} GB");
}
