//! What every kembed program does alike: write logs, obey signals, serve HTTP within bounds, answer health checks and
//! metrics, send traces, tell errors.

pub mod crew;
pub mod errors;
pub mod files;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod shutdown;
pub mod threads;
pub mod traces;

mod exporter;
mod pulse;
mod seldom;
