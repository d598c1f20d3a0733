//! `operator gateway`: takes every request to the pod that answers it.
//!
//! What decides is pure: [`route`] finds the service, [`directory`] and [`availability`] know its pods, [`balance`]
//! gives them their turn, [`refusal`] words what a client is told. [`watch`] and [`probe`] bring the news, [`answer`]
//! and [`upstream`] carry requests through.

pub mod answer;
pub mod availability;
pub mod balance;
pub mod body;
pub mod directory;
pub mod knowledge;
pub mod metrics;
pub mod name;
pub mod probe;
pub mod refusal;
pub mod route;
pub mod server;
pub mod upstream;
pub mod watch;

#[cfg(test)]
mod fixtures;
mod headers;
mod model_body;
mod models;
mod objects;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    answer::{Gateway, Limits},
    knowledge::Knowledge,
    metrics::Metrics,
    server::Drain,
};

/// Flags of `operator gateway`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where requests come in
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Where health checks and metrics are served
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health_listen: SocketAddr,

    /// Bytes that a body may have which names its service as "model"; others pass through unread
    #[arg(long, default_value_t = 8 * 1024 * 1024)]
    pub model_body_limit: usize,

    /// Time for a pod to answer, where the EmbeddingService sets no spec.traffic.requestTimeout
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub request_timeout: Duration,

    /// How long to accept connections after SIGTERM, while the cluster learns that this gateway ends
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub drain_delay: Duration,

    /// How long requests in hand may take after that; with the delay, less than the pod's grace period
    #[arg(long, default_value = "50s", value_parser = duration)]
    pub drain_timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, kembed_crds::InvalidDuration> {
    kembed_crds::Duration::new(text).parse()
}

/// Runs the gateway until `shutdown` is cancelled and the requests in hand are answered.
///
/// # Errors
/// If a port cannot be listened on, or a task that must not end does.
pub async fn run(args: Args, client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Args { listen, health_listen, model_body_limit, request_timeout, drain_delay, drain_timeout } = args;
    let requests = bind(listen).await?;
    let health = bind(health_listen).await?;

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let knowledge = Arc::new(Knowledge::new(metrics.clone()));
    let limits = Limits { model_body: model_body_limit, request_timeout };
    let gateway = Arc::new(Gateway::new(knowledge.clone(), metrics, limits, shutdown.clone()));

    let mut tasks = JoinSet::new();
    tasks.spawn(watch::services(client.clone(), knowledge.clone()));
    tasks.spawn(watch::pods(client, knowledge.clone()));
    tasks.spawn(probe::run(knowledge));
    let ready = gateway.clone();
    tasks.spawn(async move {
        // It answers to the end, and so does not hear of the shutdown.
        let never = CancellationToken::new();
        let ended = kembed_runtime::health::serve(health, registry, move || ready.is_ready(), never).await;
        tracing::error!(?ended, "no more health checks are answered");
    });

    tracing::info!(%listen, %health_listen, "serving");
    let drain = Drain { delay: drain_delay, timeout: drain_timeout };
    tokio::select! {
        () = server::serve(requests, gateway, drain, shutdown) => Ok(()),
        ended = tasks.join_next() => bail!("a task that must not end did: {ended:?}"),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}
