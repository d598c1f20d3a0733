//! What every kembed program does alike: write logs, obey signals, answer health checks and metrics, send traces.

pub mod health;
pub mod logging;
pub mod metrics;
pub mod shutdown;
pub mod traces;
