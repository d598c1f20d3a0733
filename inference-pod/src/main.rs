//! The program `inference-pod`.

use std::{env, error::Error, process::ExitCode};

use clap::Parser;
use inference_pod::{
    config::{Cli, Command},
    serve::serve,
};
use kembed_runtime::traces;

/// Without it ONNX Runtime would tell its makers, over the network, what it is used for. Its own switch for a program
/// comes too late: by then it has made an identity for the machine, and something to tell.
const NO_TELEMETRY: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

fn main() -> ExitCode {
    #[allow(unsafe_code, reason = "the library reads it from the environment and nowhere else")]
    // SAFETY: there is no other thread yet that could read the environment meanwhile.
    unsafe {
        env::set_var(NO_TELEMETRY.0, NO_TELEMETRY.1);
    }
    let Cli { logs, command } = Cli::parse();
    if let Err(error) = logs.init() {
        eprintln!("failed to read --log-filter: {error}");
        return ExitCode::FAILURE;
    }
    let _traces = match traces::start("kembed-inference-pod") {
        Ok(traces) => traces,
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "failed to start traces");
            return ExitCode::FAILURE;
        }
    };
    match command {
        Command::Serve(args) => serve(*args),
    }
}
