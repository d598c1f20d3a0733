//! Serves models from a directory as the Hugging Face hub does. For tests and the demo.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use e2e::hub::Hub;
use kembed_runtime::{logging::LogArgs, shutdown};

/// Serves models from a directory as the Hugging Face hub does
#[derive(Parser)]
struct Args {
    /// Directory that holds ORG/NAME/FILES
    #[arg(long)]
    root: PathBuf,

    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    #[command(flatten)]
    log: LogArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { root, listen, log } = Args::parse();
    log.init()?;
    let hub = Hub::open(&root).with_context(|| format!("failed to read models from {}", root.display()))?;
    let shutdown = shutdown::on_signal()?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("failed to listen on {listen}"))?;
    tracing::info!(%listen, root = %root.display(), "serving models");
    axum::serve(listener, hub.router()).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}
