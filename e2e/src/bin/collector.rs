//! Takes traces as a collector of OpenTelemetry does, and tells which spans it got. For tests.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use e2e::collector::Collector;
use kembed_runtime::{logging::LogArgs, shutdown};

/// Takes traces as a collector of OpenTelemetry does, and tells which spans it got
#[derive(Parser)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0:4318")]
    listen: SocketAddr,

    #[command(flatten)]
    log: LogArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { listen, log } = Args::parse();
    log.init()?;
    let shutdown = shutdown::on_signal()?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("failed to listen on {listen}"))?;
    tracing::info!(%listen, "collecting traces");
    let router = Collector::default().router();
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}
