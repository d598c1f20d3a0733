//! How close serving comes to bare ONNX Runtime: `make bench`.
//!
//! A pod is a process of its own, loaded from this one, which does little else meanwhile. Before each load the same
//! graph is run here without anything around it, and after it a pod that computes in int8 gets the same load. Machines are rarely quiet, so that the two take turns, and the median
//! of their ratios counts. Seconds of CPU are compared too: others on the machine change them least.

mod ceiling;
mod generator;
mod pod;
mod report;
mod texts;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use hyper::body::Bytes;
use inference_pod::{config::PrecisionArg, model::Precision, tokenise::Tokeniser};

use self::{
    ceiling::{Ceiling, ROWS},
    generator::{load, percentile},
    pod::{Pod, cpu},
    report::{Report, Round, Row, Served},
    texts::{Body, Dice},
};

/// Lengths of a load at which the ceiling is measured.
const LENGTHS: usize = 9;

/// The model's limit, as its own files have it.
const MAX_TOKENS: usize = 256;

/// How close serving comes to bare ONNX Runtime
#[derive(Parser)]
struct Args {
    /// The pod [default: the one built with this program]
    #[arg(long, default_value = env!("CARGO_BIN_EXE_inference-pod"))]
    pod: PathBuf,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 6.)]
    seconds: f64,
    /// Times that each is made
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only loads whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
    /// Instead: the speed of bare ONNX Runtime by length and rows of a batch
    #[arg(long)]
    table: bool,
    /// What that is computed in
    #[arg(long, default_value = "float32")]
    precision: PrecisionArg,
    /// Where to write the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A pod each.
const PRECISIONS: [Precision; 2] = [Precision::Float32, Precision::Int8];

/// What is asked of a pod.
struct Load {
    name: &'static str,
    connections: usize,
    /// Texts of a request.
    inputs: usize,
    /// Words of a text, at least and at most.
    words: (usize, usize),
    /// How much longer than others it is measured: few requests of many texts end in a second.
    times: f64,
}

const LOADS: [Load; 4] = [
    Load { name: "100 connections, 12 words", connections: 100, inputs: 1, words: (12, 12), times: 1. },
    Load { name: "1 connection, 12 words", connections: 1, inputs: 1, words: (12, 12), times: 1. },
    Load { name: "20 connections, 8-200 words", connections: 20, inputs: 1, words: (8, 200), times: 1. },
    Load {
        name: "4 connections, 32 texts of 8-200 words",
        connections: 4,
        inputs: 32,
        words: (8, 200),
        times: 4.,
    },
];

fn main() {
    let args = Args::parse();
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.build");
    let (model, library) = (build.join("model"), build.join("onnxruntime/libonnxruntime.so"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if args.table {
        let precision = args.precision.try_into().unwrap_or_else(|e| panic!("{e}"));
        let mut ceiling = Ceiling::new(&model, &library, precision, threads);
        return table(&mut ceiling, threads, Duration::from_secs_f64(args.seconds));
    }
    let mut ceiling = Ceiling::new(&model, &library, Precision::Float32, threads);
    let tokeniser = fs::read(model.join("tokenizer.json")).expect("the model has it");
    let tokeniser = Tokeniser::new(&tokeniser, MAX_TOKENS, false).expect("a good file");
    let start = |precision| Pod::start(&args.pod, &model, &library, precision);
    let starts =
        PRECISIONS.map(|precision| (0..args.rounds).map(|_| start(precision).start.as_secs_f64()).collect());
    let pods = PRECISIONS.map(start);
    let fresh = pods.each_ref().map(|pod| pod.memory().0);
    let loads = LOADS.iter().filter(|load| load.name.contains(&args.only));
    let rows = loads.map(|load| measure(load, &args, &pods, &tokeniser, &mut ceiling)).collect();
    let weights = fs::metadata(model.join("model.safetensors")).expect("the model has it").len();
    let memory = [0, 1].map(|i| [fresh[i], pods[i].memory().0, pods[i].memory().1]);
    let report = Report { threads, rows, starts, memory, weights: weights as f64 / f64::from(1 << 20) };
    println!("{}", report.markdown());
    if let Some(file) = args.json {
        fs::write(file, report.json()).expect("the file can be written");
    }
}

fn measure(load: &Load, args: &Args, pods: &[Pod; 2], tokeniser: &Tokeniser, ceiling: &mut Ceiling) -> Row {
    // More than are in hand at once, so that no two of those are alike.
    let mut dice = Dice::new(1);
    let bodies: Vec<_> = (0..(2048 / load.inputs).max(64))
        .map(|_| Body::new(&mut dice, load.inputs, load.words.0, load.words.1))
        .collect();
    let mut lengths: Vec<_> = bodies
        .iter()
        .flat_map(|body| &body.texts)
        .map(|text| tokeniser.ids("", text).expect("plain words").len())
        .collect();
    lengths.sort_unstable();
    let places = (0..LENGTHS).map(|i| (2 * i + 1) * lengths.len() / (2 * LENGTHS));
    let sample: Vec<_> = places.map(|place| lengths[place]).collect();
    let bodies: Vec<_> = bodies.into_iter().map(|body| Bytes::from(body.json)).collect();
    let time = Duration::from_secs_f64(args.seconds);
    let rounds = (0..args.rounds).map(|_| {
        let bare = if load.connections == 1 {
            ceiling.speed(1, 1, sample[LENGTHS / 2], time)
        } else {
            ceiling.of_mix(&sample, time)
        };
        let [float, int8] = pods.each_ref().map(|pod| serve(load, pod, &bodies, time.mul_f64(load.times)));
        Round { bare, float, int8 }
    });
    let rounds: Vec<_> = rounds.collect();
    eprintln!("{}: done, load of the machine {}", load.name, load_average());
    Row { name: load.name, latency_counts: load.connections == 1, rounds }
}

fn serve(asked: &Load, pod: &Pod, bodies: &[Bytes], time: Duration) -> Served {
    let (pod_before, own_before) = (pod.cpu(), cpu("self"));
    let measured = load(pod.address, bodies, asked.connections, time.div_f64(6.), time);
    let rows = (measured.latencies.len() * asked.inputs) as f64;
    let all = (measured.answered * asked.inputs) as f64;
    Served {
        rows_per_second: rows / measured.seconds,
        p50: percentile(&measured.latencies, 0.5),
        p95: percentile(&measured.latencies, 0.95),
        health: percentile(&measured.health, 0.99),
        cpu: (pod.cpu() - pod_before) / all,
        client: (cpu("self") - own_before) / all,
    }
}

fn table(ceiling: &mut Ceiling, threads: usize, time: Duration) {
    println!("| tokens | {} |", ROWS.map(|rows| format!("B={rows}")).join(" | "));
    println!("|---|{}", "---|".repeat(ROWS.len()));
    for length in [8, 16, 32, 64, 128, 256] {
        let cells = ROWS.map(|rows| {
            let speed = ceiling.speed(threads, rows, length, time);
            format!("{:.0} ({:.0} us CPU a token)", speed.rows_per_second, speed.cpu * 1e6 / length as f64)
        });
        println!("| {length} | {} |", cells.join(" | "));
    }
}

fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(1).collect()
}
