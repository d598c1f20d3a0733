//! The pipeline: fetch, validate, build, apply, observe, decide the status, write it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::{EmbeddingService, EmbeddingServiceStatus, conditions::Reason};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{controller::Action, reflector::Store},
};

use tokio::time::timeout;

use super::{
    apply::{Applier, ApplyError, FIELD_MANAGER, Made},
    build::{self, NoImage},
    config::Config,
    deployed::Deployed,
    events,
    info::Infos,
    memory::Memory,
    metrics::{Metrics, Outcome},
    observe,
    pods::{Hindrance, PodState},
    status::{self, DeploymentCounts, Observed, ObservedPod},
    validate::{InvalidSpec, validate},
};
use crate::{autoscaler::decisions::Decisions, publisher::Publisher};

/// How often a service is looked at when nothing happens: heals what is not watched.
const RESYNC: Duration = Duration::from_secs(300);
/// How often a service is looked at while a pod is on its way: some of what it waits for sends no news.
const WATCHFUL: Duration = Duration::from_secs(2);

/// How often a service is looked at while something stands in the way that sends no news when it goes: another's object
/// of its name, or what made the API server refuse ours.
const HINDERED: Duration = Duration::from_secs(10);

/// How long after a change its status may wait for the first that comes of it: that a Deployment was written is known to
/// nobody else yet, and half a moment later its pods are there. Two writes become one.
const JOINED: Duration = Duration::from_millis(300);

/// The longest that a service waits until all pods are known.
const LISTED: Duration = Duration::from_secs(10);

/// What every reconciliation uses.
pub struct Context {
    /// Behind the fence.
    pub client: Client,
    /// The platform team's.
    pub config: Config,
    /// The pods of all services.
    pub pods: Store<Pod>,
    /// Their Deployments, without their specs.
    pub deployments: Store<Deployed>,
    /// What was applied last.
    pub memory: Mutex<Memory>,
    /// What the pods have said.
    pub infos: Infos,
    /// What the autoscaler decided.
    pub decisions: Decisions,
    /// Publishes events.
    pub publisher: Publisher,
    /// Counts.
    pub metrics: Metrics,
}

/// Why a reconciliation must be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object could not be applied.
    #[error(transparent)]
    Apply(ApplyError),
    /// This process has just begun to lead.
    #[error("the pods of the cluster are not known yet")]
    PodsUnknown,
    /// The status could not be written.
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
}

/// Makes the cluster as `object` says, and its status as the cluster is.
///
/// # Errors
/// If another try may help.
pub async fn reconcile(object: Arc<EmbeddingService>, context: Arc<Context>) -> Result<Action, Error> {
    let start = Instant::now();
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // the garbage collector ends what it owns
    }
    let result = run(&object, &context).await;
    let outcome = match &result {
        Ok((_, None)) => Outcome::Applied,
        Ok((_, Some(_))) => Outcome::Hindered,
        Err(_) => Outcome::Failed,
    };
    context.metrics.reconciled(outcome, start);
    result.map(|(action, _)| action)
}

async fn run(object: &EmbeddingService, context: &Context) -> Result<(Action, Option<Hindrance>), Error> {
    // Else a service that serves would be told as one without pods.
    let listed = timeout(LISTED, context.pods.wait_until_ready()).await;
    if !matches!(listed, Ok(Ok(()))) {
        return Err(Error::PodsUnknown);
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let (deployment, hindrance) = match make(object, context).await {
        Ok(made) if is_news(made.deployment.counts(), object.spec.replicas, made.since.elapsed()) => {
            return Ok((Action::requeue(JOINED), None));
        }
        Ok(made) => (Some(made.deployment), None),
        // What was made before still runs.
        Err(MakeError::Hindered(hindrance)) => {
            (observe::deployment(&context.deployments, object), Some(hindrance))
        }
        Err(MakeError::Again(ApplyError::NamespaceTerminating(_))) => {
            return Ok((Action::await_change(), None));
        }
        Err(MakeError::Again(error)) => return Err(Error::Apply(error)),
    };
    let pods = observe::pods(&context.client, &context.pods, &context.infos, &namespace, &name).await;
    let latency = object.spec.scaling.as_ref().and_then(|scaling| scaling.latency.as_ref());
    let observed = Observed {
        generation: object.metadata.generation,
        replicas: object.spec.replicas,
        scales: object.spec.scaling.is_some(),
        decided: context.decisions.get(&format!("{namespace}/{name}"), object.metadata.uid.as_deref()),
        target: latency.map(|latency| latency.target.to_string()),
        accelerator: object.spec.accelerator.is_some(),
        pinned_digest: object.spec.model.digest.clone(),
        hindrance: hindrance.clone().or_else(|| deployment.as_deref().and_then(Deployed::replica_failure)),
        deployment: deployment.as_deref().map(Deployed::counts).unwrap_or_default(),
        name,
        namespace,
        pods,
    };
    let newly_recorded = write_status(object, &observed, context).await?;
    Ok((next(&observed.pods, newly_recorded, hindrance.is_some()), hindrance))
}

enum MakeError {
    /// A user has to act.
    Hindered(Hindrance),
    /// Another try may help.
    Again(ApplyError),
}

impl From<InvalidSpec> for MakeError {
    fn from(error: InvalidSpec) -> Self {
        Self::Hindered(Hindrance::new(Reason::InvalidSpec, error.to_string()))
    }
}

impl From<NoImage> for MakeError {
    fn from(error: NoImage) -> Self {
        Self::Hindered(Hindrance::new(Reason::AcceleratorUnavailable, error.to_string()))
    }
}

impl From<ApplyError> for MakeError {
    fn from(error: ApplyError) -> Self {
        error.hindrance().map_or(Self::Again(error), Self::Hindered)
    }
}

async fn make(object: &EmbeddingService, context: &Context) -> Result<Made, MakeError> {
    let objects = build::build(&validate(object)?, &context.config)?;
    let applier = Applier {
        client: &context.client,
        service: &object.metadata,
        memory: &context.memory,
        deployments: &context.deployments,
    };
    Ok(applier.apply(&objects).await?)
}

/// Whether a Deployment was changed only just now, and nothing has come of it yet.
fn is_news(counts: DeploymentCounts, wanted: i32, age: Duration) -> bool {
    age < JOINED && (!counts.current || counts.replicas != wanted)
}

/// Writes the status if it changed; says whether a vector space was recorded just now.
async fn write_status(
    object: &EmbeddingService,
    observed: &Observed,
    context: &Context,
) -> Result<bool, Error> {
    let previous = object.status.clone().unwrap_or_default();
    let status = status::decide(observed, &previous, Timestamp::now());
    if status == previous {
        return Ok(false);
    }
    let newly_recorded = previous.space.is_none() && status.space.is_some();
    match patch(object, &status, newly_recorded, &context.client).await {
        Ok(()) => (),
        // It was deleted a moment ago: there is nothing left to tell.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        Err(error) => return Err(Error::Status(Box::new(error))),
    }
    context.metrics.status_written();
    for told in events::changes(&previous.conditions, &status.conditions) {
        context.publisher.publish(object, told).await;
    }
    Ok(newly_recorded)
}

async fn patch(
    object: &EmbeddingService,
    status: &EmbeddingServiceStatus,
    recording: bool,
    client: &Client,
) -> kube::Result<()> {
    // A space is recorded once. With the version that was read, a second record is refused rather than written over it.
    let version = object.metadata.resource_version.as_ref().filter(|_| recording);
    let mut metadata = serde_json::json!({"name": object.name_any(), "uid": object.metadata.uid});
    if let Some(version) = version {
        metadata["resourceVersion"] = version.as_str().into();
    }
    let patch = serde_json::json!({
        "apiVersion": EmbeddingService::api_version(&()),
        "kind": EmbeddingService::kind(&()),
        "metadata": metadata,
        "status": status,
    });
    let api: Api<EmbeddingService> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await.map(drop)
}

fn next(pods: &[ObservedPod], newly_recorded: bool, hindered: bool) -> Action {
    if newly_recorded {
        return Action::requeue(Duration::ZERO); // for the ConfigMap that tells later pods
    }
    let underway = |pod: &ObservedPod| match pod.state {
        PodState::Ready => pod.space.is_none(),
        PodState::Starting | PodState::Running => true,
        PodState::Hindered(_) | PodState::Gone => false,
        PodState::Unschedulable(_) | PodState::NodeOrdered(_) | PodState::CapacityRefused(_) => false,
    };
    // What is said of nodes sends no news either.
    let waits = |pod: &ObservedPod| pod.state.waits_for_node();
    let hindered = hindered || pods.iter().any(waits);
    Action::requeue(match (pods.iter().any(underway), hindered) {
        (true, _) => WATCHFUL,
        (false, true) => HINDERED,
        (false, false) => RESYNC,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_waits_for_what_comes_of_a_change_and_not_for_long() {
        let counts =
            |current, replicas| DeploymentCounts { current, replicas, ..DeploymentCounts::default() };
        assert!(is_news(counts(false, 1), 1, Duration::ZERO) && is_news(counts(true, 0), 1, Duration::ZERO));
        assert!(!is_news(counts(true, 1), 1, Duration::ZERO));
        assert!(!is_news(counts(false, 0), 1, JOINED));
    }

    #[test]
    fn what_sends_no_news_is_looked_at_more_often() {
        let pod = |state| [ObservedPod { name: "minilm-1".into(), state, space: None, devices: Vec::new() }];
        assert_eq!(next(&[], true, false), Action::requeue(Duration::ZERO));
        assert_eq!(next(&pod(PodState::Running), false, true), Action::requeue(WATCHFUL));
        // Once, a service whose name was taken stayed in conflict for minutes after the other object was gone.
        assert_eq!(next(&[], false, true), Action::requeue(HINDERED));
        assert_eq!(next(&pod(PodState::NodeOrdered("".into())), false, false), Action::requeue(HINDERED));
        assert_eq!(next(&pod(PodState::Gone), false, false), Action::requeue(RESYNC));
    }
}
