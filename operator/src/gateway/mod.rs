//! `operator gateway`: takes every request to the pod that answers it.
//!
//! What decides is pure: [`caller`] and [`keys`] say who may use a service and how much, [`route`] finds it,
//! [`inference`] tells what is worth waiting for, [`directory`] and [`availability`] know the service's pods,
//! [`kembed_queue`] gives each request its pod and its time, [`refusal`] words what a client is told. [`watch`] and
//! [`probe`] bring the news; [`answer`], [`owner`] and [`upstream`] carry requests through, over [`connections`] that are
//! kept, [`parcel`] has long bodies come when they are wanted, and [`load`] counts them for the leader, who follows it at [`internal`]. Of several gateways one owns each
//! service: [`ownership`] says which, [`peers`] knows them all, [`link`] connects to them, [`hop`] is what they say, and
//! [`forward`] takes requests there.

pub mod activation;
pub mod admission;
pub mod answer;
pub mod attempt;
pub mod availability;
pub mod balance;
pub mod body;
pub mod bucket;
pub mod buffers;
pub mod caller;
pub mod connections;
pub mod credit;
pub mod directory;
pub mod forward;
pub mod hedge;
pub mod hop;
pub mod inference;
pub mod internal;
pub mod key_index;
pub mod keys;
pub mod knowledge;
pub mod leg;
pub mod link;
pub mod load;
pub mod metrics;
pub mod name;
pub mod objects;
pub mod owner;
pub mod ownership;
pub mod parcel;
pub mod peers;
pub mod probe;
pub mod refusal;
pub mod reviews;
pub mod route;
pub mod server;
pub mod service_queue;
pub mod turn;
pub mod upstream;
pub mod usage;
pub mod watch;

#[cfg(test)]
mod fixtures;
mod headers;
mod held_tokens;
mod model_body;
mod models;
mod names;
mod timing;
mod within;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use kembed_runtime::{crew::Crew, files};
use kube::Client;
use prometheus_client::registry::Registry;
use socket2::SockRef;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    activation::Activation,
    answer::{Gateway, Limits},
    credit::PodCredit,
    internal::Internal,
    knowledge::Knowledge,
    metrics::Metrics,
    peers::Peers,
    reviews::Reviews,
    server::Drain,
    service_queue::WaitLimits,
    usage::KeyUsage,
};

/// Connections that may wait to be accepted; Linux has no more wait than `net.core.somaxconn`, which is 4,096.
const BACKLOG: i32 = 4096;

/// Flags of `operator gateway`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where requests come in
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Where health checks and metrics are served
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health_listen: SocketAddr,

    /// Where the rest of kembed speaks to this gateway
    #[arg(long, default_value = "0.0.0.0:8082")]
    pub internal_listen: SocketAddr,

    /// The controller's user name, as in system:serviceaccount:NAMESPACE:NAME; without it nobody may follow the load
    #[arg(long, env = "KEMBED_CONTROLLER_USER")]
    pub controller_user: Option<String>,
    /// Labels of the gateways' pods, as app.kubernetes.io/component=gateway; without them, or without the next two, this one knows of no others
    #[arg(long)]
    pub peers: Option<String>,

    /// Namespace of the gateways' pods
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,

    /// Name of this gateway's pod
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,

    /// Bytes that the body of a request for vectors may have, or one that names its service as "model"
    #[arg(long, default_value_t = 8 * 1024 * 1024)]
    pub body_limit: usize,

    /// Bytes that the bodies of all requests may take that the gateway holds in memory
    #[arg(long, default_value_t = 128 * 1024 * 1024)]
    pub bodies_limit: usize,

    /// Bytes that the bodies of requests may take which wait for one service
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub queue_bytes_limit: usize,

    /// Requests that may wait for a service, where it sets no spec.traffic.maxQueuedRequests
    #[arg(long, default_value_t = 10_000)]
    pub queue_limit: usize,

    /// Time that a request may wait for a pod, where the EmbeddingService sets no spec.traffic.queueTimeout
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub queue_timeout: Duration,

    /// Connections of clients; further ones wait to be accepted. Of open files there must be twice as many
    #[arg(long, default_value_t = 16_384)]
    pub max_connections: usize,

    /// Log a line for each request at level info instead of debug; without inputs, query strings and keys
    #[arg(long)]
    pub access_log: bool,

    /// Time for a pod to answer, where the EmbeddingService sets no spec.traffic.requestTimeout
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub request_timeout: Duration,

    /// How long to accept connections after SIGTERM, while the cluster learns that this gateway ends
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub drain_delay: Duration,

    /// How long requests in hand may take after that, and those that wait may go on waiting; with the delay, less than the pod's grace period
    #[arg(long, default_value = "50s", value_parser = duration)]
    pub drain_timeout: Duration,
}

impl Args {
    fn limits(&self) -> Limits {
        let wait = WaitLimits {
            requests: self.queue_limit,
            bytes: self.queue_bytes_limit,
            time: self.queue_timeout,
        };
        Limits {
            body: self.body_limit,
            bodies: self.bodies_limit,
            request_timeout: self.request_timeout,
            wait,
        }
    }
}

fn duration(text: &str) -> Result<Duration, kembed_crds::InvalidDuration> {
    kembed_crds::Duration::new(text).parse()
}

/// Runs the gateway until `shutdown` is cancelled and the requests in hand are answered.
///
/// # Errors
/// If a port cannot be listened on, or a task that must not end does.
pub async fn run(args: Args, client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let requests = bind(args.listen).await?;
    let health = bind(args.health_listen).await?;
    let patience = server::patience(args.max_connections, files::raise_limit());
    let internal_requests = bind(args.internal_listen).await?;
    let crew = Crew::start().context("failed to start threads")?;

    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry).with_access_log(args.access_log);
    let knowledge = Arc::new(Knowledge::new(metrics.clone()));
    registry.register_collector(Box::new(KeyUsage::new(knowledge.clone())));
    let drain = Drain { delay: args.drain_delay, timeout: args.drain_timeout };
    let (limits, activation) = (args.limits(), Activation::new(client.clone()));
    let mut tasks = JoinSet::new();
    let peers = match (args.peers, args.namespace, args.pod_name) {
        (Some(labels), Some(namespace), Some(name)) => {
            let peers = Peers::new(name, shutdown.clone(), metrics.clone()).reached_from(&crew);
            let peers = Arc::new(peers);
            let (client, known) = (client.clone(), peers.clone());
            tasks.spawn(async move { watch::gateways(client, &namespace, &labels, &known).await });
            peers
        }
        _ => Arc::new(Peers::alone(shutdown.clone(), metrics.clone())),
    };
    let gateway = Gateway::new(knowledge.clone(), peers, metrics, limits, activation, shutdown.clone());
    let gateway = Arc::new(gateway);
    registry.register_collector(Box::new(PodCredit::new(gateway.owner().clone())));
    let reviews = Reviews::new(client.clone(), args.controller_user);
    let internal = Arc::new(Internal::new(gateway.load().clone(), knowledge.clone(), reviews));

    let taker = forward::taker(gateway.clone());
    tasks.spawn(internal::serve(Some(crew.clone()), internal_requests, internal, taker));
    tasks.spawn(watch::services(client.clone(), knowledge.clone()));
    tasks.spawn(watch::pods(client, knowledge.clone()));
    tasks.spawn(probe::run(knowledge, gateway.load().clone()));
    let closing = drain.closing(shutdown.clone());
    let owner = gateway.owner().clone();
    tasks.spawn(async move {
        owner.run(closing).await;
        std::future::pending().await
    });
    let giving_way = gateway.clone();
    tasks.spawn(async move { giving_way.give_way().await });
    let ready = gateway.clone();
    tasks.spawn(async move {
        // It answers to the end, and so does not hear of the shutdown.
        let never = CancellationToken::new();
        let ended = kembed_runtime::health::serve(health, registry, move || ready.is_ready(), never).await;
        tracing::error!(?ended, "no more health checks are answered");
    });

    tracing::info!(listen = %args.listen, connections = patience.most, "serving");
    tokio::select! {
        () = server::serve(Some(crew), requests, gateway, patience, drain, shutdown) => Ok(()),
        ended = tasks.join_next() => bail!("a task that must not end did: {ended:?}"),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        // The standard library has 1,024 wait, and a client that finds no place tries again a second later.
        SockRef::from(&listener).listen(BACKLOG)?;
        std::io::Result::Ok(listener)
    };
    listening.await.with_context(|| format!("failed to listen on {address}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::documentation::{GATEWAY, rows};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        _args: Args,
    }

    #[test]
    fn every_flag_is_documented_with_its_default() {
        let command = Cli::command();
        let flags = command.get_arguments().filter(|flag| flag.get_id() != "help").map(|flag| {
            let name = flag.get_long().expect("a long flag");
            let defaults: Vec<_> =
                flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let default = match defaults.join("") {
                none if none.is_empty() || none == "false" => " ".to_owned(),
                value => format!(" {value} "),
            };
            format!("| `--{name}` |{default}|")
        });
        let (flags, rows): (Vec<_>, _) = (flags.collect(), rows(GATEWAY, "Flags"));
        assert_eq!(rows.len(), flags.len());
        for (row, flag) in rows.iter().zip(flags) {
            assert!(row.starts_with(&flag), "{flag} is documented as\n{row}");
        }
    }
}
