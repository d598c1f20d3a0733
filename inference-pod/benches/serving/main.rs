//! How close serving comes to bare ONNX Runtime: `make bench`.
//!
//! A pod is a process of its own, loaded from this one, which does little else meanwhile. Before each load the same
//! graph is run here without anything around it, and after it a pod that computes in int8 gets the same load. Machines
//! are rarely quiet, so that they take turns, and the median of their ratios counts. Seconds of CPU are compared too:
//! others on the machine change them least.

mod ceiling;
mod client;
mod closed;
mod loads;
mod open;
mod picture;
mod pod;
mod process;
mod report;
mod texts;
mod window;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use inference_pod::{config::PrecisionArg, model::Precision, tokenise::Tokeniser};

use self::{
    ceiling::{Batch, Ceiling, ROWS},
    loads::{Bench, LOADS},
    pod::Pod,
    report::Report,
};

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
    #[arg(long, default_value_t = 3)]
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
    /// Where to draw them as SVG
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A pod each.
const PRECISIONS: [Precision; 2] = [Precision::Float32, Precision::Int8];

fn main() {
    let args = Args::parse();
    let program = pod::find(&args.pod).unwrap_or_else(|why| stop(&why));
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.build");
    let (model, library) = (build.join("model"), build.join("onnxruntime/libonnxruntime.so"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if args.table {
        let precision = args.precision.on(false).unwrap_or_else(|e| panic!("{e}"));
        let mut ceiling = Ceiling::new(&model, &library, precision, threads);
        return table(&mut ceiling, Duration::from_secs_f64(args.seconds));
    }
    let tokeniser = fs::read(model.join("tokenizer.json")).expect("the model has it");
    let start = |precision| Pod::start(&program, &model, &library, precision, &[]);
    let starts =
        PRECISIONS.map(|precision| (0..args.rounds).map(|_| start(precision).start.as_secs_f64()).collect());
    let pods = PRECISIONS.map(start);
    let fresh = pods.each_ref().map(|pod| pod.memory().0);
    let mut bench = Bench {
        ceiling: Ceiling::new(&model, &library, Precision::Float32, threads),
        tokeniser: Tokeniser::new(&tokeniser, MAX_TOKENS, false).expect("a good file"),
        pods: &pods,
        time: Duration::from_secs_f64(args.seconds),
        rounds: args.rounds,
    };
    let measured = LOADS.iter().filter(|load| load.name.contains(&args.only)).map(|load| {
        let row = bench.measure(load);
        // At once: whoever ends this early has what was measured until then.
        eprintln!("{}\nload of the machine: {}", row.lines(), load_average());
        row
    });
    let rows = measured.collect();
    let weights = fs::metadata(model.join("model.safetensors")).expect("the model has it").len();
    let memory = [0, 1].map(|i| [fresh[i], pods[i].memory().0, pods[i].memory().1]);
    let report = Report { threads, rows, starts, memory, weights: weights as f64 / f64::from(1 << 20) };
    println!("{}", report.markdown());
    let files = [(args.json, report.json()), (args.svg, picture::draw(&report))];
    for (file, text) in files.into_iter().filter_map(|(file, text)| Some((file?, text))) {
        fs::write(file, text).expect("the file can be written");
    }
}

fn stop(why: &str) -> ! {
    eprintln!("serving: {why}");
    std::process::exit(1)
}

fn table(ceiling: &mut Ceiling, time: Duration) {
    println!("| tokens | {} |", ROWS.map(|rows| format!("B={rows}")).join(" | "));
    println!("|---|{}", "---|".repeat(ROWS.len()));
    for length in [8, 16, 32, 64, 128, 256] {
        let cells = ROWS.map(|rows| {
            let speed = ceiling.speed(Batch::new(rows, length), time);
            format!("{:.0} ({:.0} us CPU a token)", speed.rows_per_second, speed.cpu * 1e6 / length as f64)
        });
        println!("| {length} | {} |", cells.join(" | "));
    }
}

fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(1).collect()
}
