//! `operator controller`: turns each EmbeddingService into objects and keeps its status true.

mod accelerator;
mod apply;
mod build;
mod config;
mod deployed;
mod events;
mod fence;
mod fields;
mod info;
mod leader;
mod lease;
mod memory;
mod metrics;
pub(crate) mod observe;
pub(crate) mod pods;
mod reconcile;
mod status;
mod validate;
mod watches;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::EmbeddingService;
use kembed_runtime::health;
use kube::{
    Client,
    client::ClientBuilder,
    runtime::{
        Controller,
        controller::{self, Action, Config as ControllerConfig},
        reflector::{ObjectRef, Store},
    },
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{
    config::Config,
    fence::Fence,
    info::Infos,
    leader::Leader,
    metrics::Metrics,
    reconcile::{Context, Error, reconcile},
};
use crate::{
    api_errors::words,
    autoscaler::{
        self, Autoscaler,
        decisions::Decisions,
        sightings::Sightings,
        stream::Dialer,
        streams::Whereabouts,
        write::{self, Writer},
    },
    pauses::Pauses,
    publisher::Publisher,
};

/// How long after a failure a service is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Changes of a service within this time are handled together.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Flags of `operator controller`.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Configuration file
    #[arg(long, env = "KEMBED_CONFIG", default_value = "/etc/kembed/controller.yaml")]
    config: PathBuf,

    /// Where to answer health checks and metrics
    #[arg(long, env = "KEMBED_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    health_listen: SocketAddr,

    /// Namespace of the Lease that says which controller leads
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,

    /// Name of this process among all controllers
    #[arg(long, env = "POD_NAME")]
    identity: String,

    /// File with a token for the gateways, which tell their load to nobody else
    #[arg(long, env = "KEMBED_GATEWAY_TOKEN", default_value = "/var/run/secrets/kembed/gateway/token")]
    gateway_token: PathBuf,

    /// Services that are worked on at the same time
    #[arg(long, env = "KEMBED_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

/// Runs until `shutdown` is cancelled or leadership is lost, which is an error: the process must end then.
///
/// # Errors
/// If the configuration cannot be used, the listener cannot be opened, or leadership is lost.
pub async fn run(
    args: ControllerArgs,
    kube: kube::Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let scaling = autoscaler::metrics::Metrics::new(&mut registry);
    let listener =
        TcpListener::bind(args.health_listen).await.context("failed to listen for health checks")?;
    // A standby is as ready as the leader: it takes over when it must.
    let health = tokio::spawn(health::serve(listener, registry, || true, shutdown.clone()));

    let fence = Fence::default();
    let client =
        ClientBuilder::try_from(kube.clone()).context("failed to make a client")?.with_layer(&fence).build();
    let unfenced = Client::try_from(kube).context("failed to make a client")?;
    let mut leader = Leader::new(unfenced, &args.namespace, &args.identity, fence);
    tokio::select! {
        () = leader.acquire() => tracing::info!(identity = args.identity, "leading"),
        () = shutdown.cancelled() => return Ok(()),
    }
    metrics.set_leading(true);
    let controller = control(client, config, (metrics.clone(), scaling), &args, shutdown.clone());
    let lost = tokio::select! {
        () = controller => false,
        () = leader.hold() => true,
    };
    metrics.set_leading(false);
    anyhow::ensure!(!lost, "leadership was lost to another controller");
    leader.release().await;
    health.await.context("the health listener panicked")?.context("the health listener failed")
}

/// Reconciles until `shutdown` is cancelled; what is in hand then is finished.
async fn control(
    client: Client,
    config: Config,
    (metrics, scaling): (Metrics, autoscaler::metrics::Metrics),
    args: &ControllerArgs,
    shutdown: CancellationToken,
) {
    let (services, service_changes) = watches::services(client.clone());
    let (pods, pod_changes) = watches::pods(client.clone());
    let (deployments, deployment_changes) = watches::deployments(client.clone());
    let sightings = Sightings::default();
    let noted = sightings.clone();
    let pod_changes = pod_changes.inspect_ok(move |pod| noted.note(pod, Instant::now()));
    let publisher = Publisher::new(client.clone(), &args.identity);
    let whereabouts =
        Whereabouts { namespace: args.namespace.clone(), selector: config.gateway_selector.clone() };
    let (decisions, mut explained) = Decisions::new();
    let context = Arc::new(Context {
        publisher: publisher.clone(),
        decisions: decisions.clone(),
        client: client.clone(),
        config,
        pods: pods.clone(),
        deployments,
        memory: Mutex::default(),
        infos: Infos::new(),
        metrics,
    });
    let forget = forget(context.clone(), services.clone(), sightings.clone());
    let writer = Writer { client, publisher, decisions, metrics: scaling, services: services.clone() };
    let autoscaler = Autoscaler { writer, pods, sightings };
    let autoscaling = autoscaler::run(autoscaler, whereabouts, Dialer::new(args.gateway_token.clone()));
    let reconciling = Controller::for_stream(service_changes, services)
        .with_config(ControllerConfig::default().concurrency(args.concurrency).debounce(DEBOUNCE))
        .trigger_backoff(Pauses::new())
        .owns_stream(deployment_changes)
        .watches_stream(pod_changes, |pod| service_ref(&pod))
        .reconcile_on(stream::poll_fn(move |context| explained.poll_recv(context)))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, retry, context)
        .for_each(|result| async {
            // A failed reconciliation was logged where its retry was decided.
            if let Err(error @ controller::Error::QueueError(_)) = result {
                tracing::warn!(error = words(&error), "failed to watch; trying again");
            }
        });
    tokio::select! {
        () = reconciling => (),
        () = forget => (),
        () = autoscaling => (),
    }
}

fn service_ref(pod: &Pod) -> Option<ObjectRef<EmbeddingService>> {
    let namespace = pod.metadata.namespace.as_deref()?;
    Some(ObjectRef::new(observe::service_of(pod)?).within(namespace))
}

/// Keeps what is known of pods and services from growing with every one that ever was. Never ends.
async fn forget(context: Arc<Context>, services: Store<EmbeddingService>, sightings: Sightings) {
    const PERIOD: Duration = Duration::from_secs(60);
    loop {
        tokio::time::sleep(PERIOD).await;
        let pods = context.pods.state();
        context.infos.retain(pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()));
        sightings.retain(pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()));
        context.decisions.retain(|service| write::find(&services, service).is_some());
        let services = services.state();
        let uids = services.iter().filter_map(|service| service.metadata.uid.clone()).collect();
        context.memory.lock().unwrap_or_else(PoisonError::into_inner).retain(&uids);
    }
}

fn retry(object: Arc<EmbeddingService>, error: &Error, _: Arc<Context>) -> Action {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    tracing::warn!(namespace, name, error = words(error), "failed to reconcile; trying again");
    Action::requeue(RETRY)
}
