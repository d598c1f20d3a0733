//! How fast a pod's pipeline is on a GPU, beside cuBLAS and PyTorch: scripts/device-run runs it where one is.
//!
//! The pipeline, and a pod, run networks of real shapes with weights made here. Rates of the pipeline are from token ids, those over
//! HTTP from texts to vectors in base64.

#[path = "../serving/client.rs"]
mod client;
#[allow(dead_code, reason = "the bench of a CPU takes the rest")]
#[path = "../serving/closed.rs"]
mod closed;
mod cuda;
mod http;
#[allow(dead_code, reason = "the bench of a CPU takes the rest")]
#[path = "../serving/pod.rs"]
mod pod;
#[allow(dead_code, reason = "the bench of a CPU takes the rest")]
#[path = "../serving/process.rs"]
mod process;
mod report;
mod saturate;
mod shape;
#[allow(dead_code, reason = "the bench of a CPU takes the rest")]
#[path = "../serving/texts.rs"]
mod texts;
mod torch;
#[allow(dead_code, reason = "the bench of a CPU takes the rest")]
#[path = "../serving/window.rs"]
mod window;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Parser;
use inference_pod::{
    backend::onnx::load_library,
    config::{Cli, Command},
    cuda::{
        driver::{Device, Streams},
        network::{Network, OnGpu, slot_size},
        pipeline::{Settings, start},
        prepare::ROWS,
        probe::{Found, probe},
    },
    export::packed,
    model::{Overrides, Precision, Recipe, recipe::Texts, weights::Weights},
    serve::serve,
};
use ort::environment::Environment;

use self::{
    cuda::Products,
    pod::Pod,
    report::{About, HEAD, Http, Latency, Peak, Product, Report, Row},
    saturate::{Rate, saturate},
    shape::{SHAPES, Shape},
    torch::Torch,
};

/// Batches in hand, as a pod has them.
const SLOTS: usize = 3;
/// For the first batch: libraries load what they need then.
const PATIENCE: Duration = Duration::from_secs(120);
const SQUARE: usize = 8192;

/// How fast a pod's pipeline is on a GPU, beside cuBLAS and PyTorch
#[derive(Parser)]
struct Args {
    /// The pod [default: this program, which is one too: that is less to carry]
    #[arg(long)]
    pod: Option<PathBuf>,
    /// ONNX Runtime with its provider for CUDA beside it
    #[arg(long, env = "ORT_DYLIB_PATH", default_value = "/usr/lib/kembed/libonnxruntime.so")]
    onnxruntime: PathBuf,
    /// What has PyTorch, if anything does
    #[arg(long, default_value = "python3")]
    python: String,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4.)]
    seconds: f64,
    /// Only networks whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
    /// Tokens of a text
    #[arg(long, value_delimiter = ',', default_value = "16,32,64,128,512")]
    lengths: Vec<usize>,
    /// Tokens of a batch, of which the fastest counts
    #[arg(long, value_delimiter = ',', default_value = "8192,16384,32768")]
    batches: Vec<usize>,
    /// Where to write the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if env::args().any(|arg| arg == "serve") {
        return be_a_pod();
    }
    let args = Args::parse();
    let found = probe().unwrap_or_else(|why| stop(&why.to_string()));
    let mut bench = Bench::new(&args, &found);
    bench.multiply();
    eprintln!("{HEAD}");
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(&args.only)) {
        bench.measure(shape);
        // At once: whoever ends this early has what was measured until then.
        if let Some(file) = &args.json {
            fs::write(file, bench.report.json()).expect("the file can be written");
        }
    }
    println!("{}", bench.report.markdown());
    ExitCode::SUCCESS
}

fn be_a_pod() -> ExitCode {
    let Cli { logs, command: Command::Serve(args) } = Cli::parse();
    logs.init().expect("the filter is this program's own");
    serve(*args)
}

fn stop(why: &str) -> ! {
    eprintln!("device: {why}");
    std::process::exit(1)
}

/// What measures, and what was measured.
struct Bench<'a> {
    args: &'a Args,
    device: Arc<Device>,
    environment: Environment,
    products: Result<Products, String>,
    /// Of its products. Last, for they run on it.
    _streams: Streams,
    square: Option<f64>,
    report: Report,
}

impl<'a> Bench<'a> {
    fn new(args: &'a Args, Found { driver, devices, cuda, release }: &Found) -> Self {
        let gpu = devices.first().expect("there is one at least");
        let environment = load_library(&args.onnxruntime).unwrap_or_else(|e| stop(&e.to_string()));
        let device = driver.open(gpu.ordinal).unwrap_or_else(|e| stop(&e.to_string()));
        let streams = Streams::new(&device).unwrap_or_else(|e| stop(&e.to_string()));
        // This also makes it the device of this thread.
        device.memory().unwrap_or_else(|e| stop(&e.to_string()));
        let largest = args.batches.iter().max().copied().unwrap_or_default();
        let numbers = (SQUARE * SQUARE)
            .max(largest * SHAPES.map(|shape| shape.inner).into_iter().max().unwrap_or_default());
        let products = Products::open(streams.compute().address(), numbers);
        let about = About {
            device: gpu.name.clone(),
            capability: format!("{}.{}", gpu.capability.0, gpu.capability.1),
            driver: format!("{} (for CUDA {cuda})", release.as_deref().unwrap_or("of an untold release")),
            onnxruntime: ort::info().to_owned(),
            cublas: products.as_ref().map_or_else(Clone::clone, |products| products.version.to_string()),
            pytorch: Vec::new(),
        };
        let report = Report { about, ..Report::default() };
        Self { args, device, environment, products, _streams: streams, square: None, report }
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.args.seconds)
    }

    /// The peak.
    fn multiply(&mut self) {
        self.square = self.product("the peak", [SQUARE; 3]).ok();
    }

    /// Operations a second of a product, which is also reported.
    fn product(&mut self, name: &str, shape: [usize; 3]) -> Result<f64, String> {
        let seconds =
            self.products.as_ref().map_err(Clone::clone).and_then(|products| products.seconds(shape));
        let operations = 2. * shape.iter().map(|&n| n as f64).product::<f64>();
        let rate = seconds.map(|seconds| operations / seconds);
        let product = Product { name: name.to_owned(), shape, flops_per_second: rate.clone() };
        eprintln!("{}", product.markdown());
        self.report.products.push(product);
        rate
    }

    /// Of a network's products for so many tokens.
    fn own_peak(&mut self, shape: &Shape, tokens: usize) -> Option<f64> {
        let (mut operations, mut seconds) = (0., 0.);
        for (times, product) in shape.products(tokens) {
            let all = 2. * times as f64 * product.iter().map(|&n| n as f64).product::<f64>();
            operations += all;
            seconds += all / self.product(shape.name, product).ok()?;
        }
        Some(operations / seconds)
    }

    /// One network: all lengths on the device, then over HTTP, then by PyTorch.
    fn measure(&mut self, shape: &Shape) {
        let folder = Folder::new(shape);
        let largest = self.args.batches.iter().max().copied().unwrap_or(16_384);
        let own = self.own_peak(shape, largest);
        let torch = Torch::run(&self.args.python, &folder.0, largest, self.args.seconds, &self.args.lengths);
        self.report.about.pytorch.push(format!("{}: {}", shape.name, torch.about));
        let lengths = self.args.lengths.iter().filter(|&&length| length <= shape.positions);
        let rows: Vec<_> = lengths
            .map(|&length| {
                let rate = self.pipeline(shape, &folder.0, length);
                let (peak, flops) = (Peak { square: self.square, own }, shape.flops_of_token(length));
                let row = Row {
                    shape: shape.name,
                    length,
                    batch: rate.batch,
                    tokens_per_second: rate.tokens_per_second,
                    flops,
                    peak,
                    idle: rate.idle,
                    http: None,
                    torch: torch.tokens_per_second.get(&length).copied(),
                };
                eprintln!("{}", row.markdown());
                row
            })
            .collect();
        self.over_http(shape, &folder.0, rows);
    }

    fn over_http(&mut self, shape: &Shape, folder: &Path, mut rows: Vec<Row>) {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let more = ["--accelerator", "nvidia.com/gpu"];
        let program = match &self.args.pod {
            Some(named) => pod::find(named).unwrap_or_else(|why| stop(&why)),
            None => env::current_exe().expect("it runs"),
        };
        let start = || Pod::start(&program, folder, &self.args.onnxruntime, Precision::Float16, &more);
        // One that does not start said why by then. What the device did counts without it.
        let Ok(pod) = thread::scope(|scope| scope.spawn(start).join()) else {
            return self.report.rows.append(&mut rows);
        };
        for row in &mut rows {
            let served = http::saturate(&pod, row.length, self.time());
            row.http = served.map(|served| Http {
                tokens_per_second: served.tokens_per_second,
                limit: served.limit(row.tokens_per_second, cores),
                pod_cores: served.pod_cores,
                client_cores: served.client_cores,
            });
            eprintln!("{}", row.markdown());
        }
        let latency = http::latency(&pod, self.time());
        self.report.latencies.extend(latency.map(|(p50, p95)| Latency { shape: shape.name, p50, p95 }));
        self.report.rows.append(&mut rows);
    }

    /// The fastest of the sizes of batches.
    fn pipeline(&self, shape: &Shape, folder: &Path, length: usize) -> Rate {
        let mut workers = self.workers(shape, folder, length);
        let run = |&batch: &usize| {
            let rows = (batch / length).clamp(1, ROWS);
            let rate = saturate(&mut workers, (rows, length), self.time().div_f64(4.), self.time());
            rate.inspect_err(|e| eprintln!("a batch of {batch} tokens: {e}")).ok()
        };
        let rates = self.args.batches.iter().filter_map(run);
        let best = rates.max_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
        best.unwrap_or_else(|| stop("no batch was computed"))
    }

    /// As a pod makes them.
    fn workers(&self, shape: &Shape, folder: &Path, length: usize) -> Vec<OnGpu> {
        let config = shape.config();
        let overrides = Overrides { precision: Precision::Float16, ..Overrides::default() };
        let recipe =
            Recipe::read(Texts { config: &config, ..Texts::default() }, &overrides).expect("a good file");
        let weights = Weights::open(&[folder.join("model.safetensors")]).expect("good weights");
        let (graph, form) = packed::export(&recipe, &weights).expect("a BERT can be packed");
        let streams = Streams::new(&self.device).unwrap_or_else(|e| stop(&e.to_string()));
        let network = Network::on(&self.device, &streams, &self.environment, &graph, shape.hidden);
        let network = network.unwrap_or_else(|e| stop(e.message()));
        let tokens = self.args.batches.iter().max().copied().unwrap_or(length);
        let size = slot_size(ROWS, tokens.max(length), length, form, shape.hidden);
        let size = size.expect("the pooling of a BERT is known");
        let workers =
            start(&self.device, streams, network, Settings { slots: SLOTS, size, patience: PATIENCE });
        let workers = workers.unwrap_or_else(|e| stop(&e.to_string()));
        workers.into_iter().map(|worker| OnGpu::new(worker, form, shape.hidden)).collect()
    }
}

/// Where a network lies while it is measured.
struct Folder(PathBuf);

impl Folder {
    fn new(shape: &Shape) -> Self {
        let folder = env::temp_dir().join(format!("kembed-device-{}-{}", std::process::id(), shape.name));
        fs::create_dir_all(&folder)
            .and_then(|()| shape.write(&folder, &texts::WORDS))
            .expect("there is room for a model");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
