//! The program `inference-pod`.

use std::{error::Error, process::ExitCode};

use clap::Parser;
use inference_pod::{
    config::{Cli, Command},
    serve::serve,
};
use kembed_runtime::traces;

fn main() -> ExitCode {
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
