//! How fast and how safe the gateway is: `make bench-gateway`.
//!
//! Gateways are processes of the release build; clients, pods and the API server are threads of this one. Ways that are
//! compared take turns, and the median of the rounds counts. Pods either answer at once, and then it is the gateway's own
//! time that is measured, or they take the time that a real pod would, and then it is how it deals with too much work.

#[allow(dead_code, reason = "its own program asks for more")]
#[path = "../../../inference-pod/benches/serving/client.rs"]
mod client;
#[allow(dead_code, reason = "its own program asks for more")]
#[path = "../../../queue/benches/balancing/pod.rs"]
mod pod;
#[path = "../../../inference-pod/benches/serving/process.rs"]
mod process;
#[allow(dead_code, reason = "its own program asks for more")]
#[path = "../../../queue/benches/balancing/random.rs"]
mod random;
#[allow(dead_code, reason = "tests ask for more")]
#[path = "../../tests/gateway/shelf.rs"]
mod shelf;
#[allow(dead_code, reason = "its own program asks for more")]
#[path = "../../../queue/benches/balancing/traffic.rs"]
mod traffic;

mod busy_pod;
mod crowds;
mod fleet;
mod held;
mod latency;
mod loads;
mod many;
mod proxies;
mod quick_pod;
mod report;
mod world;

use std::{fs, path::PathBuf, time::Duration};

use clap::Parser;

use self::report::Row;

/// How fast and how safe the gateway is
#[derive(Parser)]
struct Args {
    /// The operator [default: the one built with this program]
    #[arg(long, default_value = env!("CARGO_BIN_EXE_operator"))]
    operator: PathBuf,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.)]
    seconds: f64,
    /// Times that each is made
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Objects that change a second, where some do
    #[arg(long, default_value_t = 100)]
    changes: u32,
    /// Only experiments whose name has this in it: latency, cpu, held, many, overload, lanes, joins
    #[arg(long, default_value = "")]
    only: String,
    /// Where to write the results as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What experiments need to know.
struct Bench {
    /// The operator.
    program: PathBuf,
    /// Of each measurement.
    time: Duration,
    /// Of each measurement.
    rounds: usize,
    /// A second, where some do.
    changes: u32,
}

/// The service that most requests are for, and its name without its namespace.
const SERVICE: &str = "team/minilm";
const NAME: &str = "minilm";

type Experiment = fn(&Bench) -> Vec<Row>;

const EXPERIMENTS: [(&str, Experiment); 7] = [
    ("latency", latency::added),
    ("cpu", latency::cpu),
    ("held", held::held),
    ("many", many::many),
    ("overload", crowds::overload),
    ("lanes", crowds::beside_bulk),
    ("joins", crowds::joins),
];

fn main() {
    let args = Args::parse();
    let Args { operator: program, rounds, changes, .. } = args;
    let bench = Bench { program, time: Duration::from_secs_f64(args.seconds), rounds, changes };
    println!("{}", report::HEAD);
    let measured =
        EXPERIMENTS.iter().filter(|(name, _)| name.contains(&args.only)).flat_map(|(_, measure)| {
            let rows = measure(&bench);
            // At once: whoever ends this early has what was measured until then.
            rows.iter().for_each(|row| println!("{}", row.markdown()));
            rows
        });
    let rows: Vec<_> = measured.collect();
    if let Some(file) = args.json {
        fs::write(file, report::json(&rows)).expect("the file can be written");
    }
}
