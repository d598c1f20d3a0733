//! Stands in for an inference pod and computes nothing. It is started as one, and passes over what it has no use for.
//!
//! `STUB_RATE` is how many tokens it takes for computed in a second, `STUB_START` how many seconds it takes to be ready.

use std::{env, net::SocketAddr, str::FromStr, time::Duration};

use anyhow::{Context, anyhow};
use e2e::stub::{Stub, of_rate};
use kembed_queue::wire::POD_PORT;
use kembed_runtime::shutdown;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (rate, start) = (number("STUB_RATE", 5000.)?, number("STUB_START", 0.)?);
    let shutdown = shutdown::on_signal()?;
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([0; 4], POD_PORT))).await?;
    let stub = Stub::new(of_rate(rate), Duration::try_from_secs_f64(start)?);
    axum::serve(listener, stub.router()).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

fn number(name: &str, default: f64) -> anyhow::Result<f64> {
    let Ok(text) = env::var(name) else { return Ok(default) };
    f64::from_str(&text).map_err(|error| anyhow!(error)).with_context(|| format!("failed to read {name}"))
}
