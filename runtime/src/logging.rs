//! Log lines on standard error, for people or for machines.

use std::io::{IsTerminal, stderr};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags that every program has.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Form of the log lines
    #[arg(long, env = "KEMBED_LOG_FORMAT", default_value = "text", global = true, help_heading = "Logs")]
    pub log_format: LogFormat,

    /// What to log: a level, or `target=level` pairs as in `info,operator::gateway=debug`
    #[arg(long, env = "KEMBED_LOG", default_value = "info", global = true, help_heading = "Logs")]
    pub log_filter: String,
}

impl LogArgs {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// If the filter cannot be parsed, with what is wrong in it.
    pub fn init(&self) -> Result<(), tracing_subscriber::filter::ParseError> {
        let logs = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_new(&self.log_filter)?)
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr);
        match self.log_format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().flatten_event(true).init(),
        }
        Ok(())
    }
}
