//! The program `inference-pod`.

use std::process::ExitCode;

use clap::Parser;
use inference_pod::{
    config::{Cli, Command},
    serve::serve,
};

fn main() -> ExitCode {
    let Cli { logs, command } = Cli::parse();
    if let Err(error) = logs.init() {
        eprintln!("failed to read --log-filter: {error}");
        return ExitCode::FAILURE;
    }
    match command {
        Command::Serve(args) => serve(*args),
    }
}
