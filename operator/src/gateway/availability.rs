//! Which pods of a service may answer, or why none may.

use core::net::SocketAddr;
use std::time::Duration;

use kembed_crds::conditions::Reason;
use kembed_queue::PodId;

use super::{keys::ApiKey, name::ServiceName};

/// What the gateway knows of an EmbeddingService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which one.
    pub name: ServiceName,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Pods it should have.
    pub replicas: i32,
    /// Whether kembed sets that number, so that a request to a service without pods brings one.
    pub scales: bool,
    /// The digest of the space that its vectors belong to, once one is recorded.
    pub digest: Option<String>,
    /// The revision of the model that was loaded, where the source has such.
    pub revision: Option<String>,
    /// Its `Ready` condition, once the controller has looked at it.
    pub ready: Option<ReadyCondition>,
    /// How long a pod may take to answer, where the spec says so.
    pub request_timeout: Option<Duration>,
    /// How long a request may wait for a pod, where the spec says so.
    pub queue_timeout: Option<Duration>,
    /// Requests that may wait at the same time, where the spec says so.
    pub queued: Option<usize>,
    /// So many of 100 interactive requests may be given to a second pod, where the spec says so.
    pub hedge_percent: Option<u32>,
    /// Keys of which a request must show one, unless there are none.
    pub keys: Vec<ApiKey>,
}

/// The `Ready` condition of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyCondition {
    /// Whether its status is `True`.
    pub holds: bool,
    /// One word.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
}

/// What the gateway knows of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Which one.
    pub name: PodName,
    /// The service that it was made for.
    pub service: ServiceName,
    /// Which life of it.
    pub life: Life,
    /// Where it listens, once it has an address.
    pub address: Option<SocketAddr>,
    /// Whether its `Ready` condition is `True`.
    pub ready: bool,
    /// Whether it was told to end.
    pub terminating: bool,
}

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One life of a pod: what it reports holds until its process is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// Another pod may get the same name; never the same `uid`.
    pub uid: String,
    /// How often its containers were restarted.
    pub restarts: i32,
}

/// What is known of a pod beyond what the API server tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insight {
    /// The number of its life.
    pub id: PodId,
    /// The digest that it reported in this life.
    pub digest: Option<String>,
    /// It said itself that it is ready, and the API server has not told it yet.
    pub said_ready: bool,
}

impl Pod {
    /// Where requests may go to: the pod is ready, as it says itself or as the API server tells, and nobody told it to end.
    pub fn open_address(&self, insight: &Insight) -> Option<SocketAddr> {
        self.live_address().filter(|_| self.ready || insight.said_ready)
    }

    /// Where it listens, if nobody told it to end.
    pub fn live_address(&self) -> Option<SocketAddr> {
        self.address.filter(|_| !self.terminating)
    }
}

/// Where a pod that may answer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which life of the pod.
    pub id: PodId,
    /// Name of the pod, for logs.
    pub pod: String,
    /// Its address.
    pub address: SocketAddr,
}

impl Endpoint {
    fn new(pod: &Pod, id: PodId, address: SocketAddr) -> Self {
        Self { id, pod: pod.name.name.clone(), address }
    }
}

/// Why no pod of a service may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// One word: the reason of the service's `Ready` condition, where that knows.
    pub reason: String,
    /// A sentence that says what stands in the way.
    pub message: String,
    /// Whether it may pass without anybody doing anything.
    pub transient: bool,
}

/// Reasons that last until somebody changes something. A word that is not known here may pass.
const LASTING: [Reason; 20] = [
    Reason::Off,
    Reason::InvalidSpec,
    Reason::NameConflict,
    Reason::PodRejected,
    Reason::CapacityRefused,
    Reason::ImagePullFailed,
    Reason::CredentialsNotFound,
    Reason::ContainerNotCreated,
    Reason::OutOfMemory,
    Reason::ModelNotFound,
    Reason::CredentialsMissing,
    Reason::CredentialsRefused,
    Reason::SourceUnsupported,
    Reason::ModelUnsupported,
    Reason::ModelInvalid,
    Reason::CacheFull,
    Reason::AcceleratorUnavailable,
    Reason::AcceleratorInaccurate,
    Reason::DigestMismatch,
    Reason::PinMismatch,
];

/// The pods that may answer for a service, in the order given. `pods` are the service's, each with what is known of its
/// present life.
///
/// # Errors
/// Why none may.
pub fn endpoints<'a>(
    service: &Service,
    pods: impl Iterator<Item = (&'a Pod, &'a Insight)>,
) -> Result<Vec<Endpoint>, Unavailable> {
    if service.replicas == 0 && !service.scales {
        return Err(off(service));
    }
    let recorded = service.digest.as_deref().ok_or_else(|| none(service))?;
    let proven = pods.filter(|(_, insight)| insight.digest.as_deref() == Some(recorded));
    let endpoint =
        |(pod, insight): (&Pod, &Insight)| Some(Endpoint::new(pod, insight.id, pod.open_address(insight)?));
    let found: Vec<_> = proven.filter_map(endpoint).collect();
    if found.is_empty() { Err(none(service)) } else { Ok(found) }
}

fn off(service: &Service) -> Unavailable {
    let (namespace, name) = (service.name.namespace(), service.name.name());
    Unavailable {
        reason: Reason::Off.as_str().to_owned(),
        message: format!(
            "EmbeddingService {} is switched off: spec.replicas is 0. Switch it on with: \
             kubectl scale -n {namespace} emb/{name} --replicas=1",
            service.name
        ),
        transient: false,
    }
}

fn asleep(service: &Service) -> Unavailable {
    Unavailable {
        reason: Reason::ScaledToZero.as_str().to_owned(),
        message: format!(
            "EmbeddingService {} has no pod, for nobody asked for a while; a request for vectors wakes it",
            service.name
        ),
        transient: true,
    }
}

fn none(service: &Service) -> Unavailable {
    if service.replicas == 0 { asleep(service) } else { why_none(service) }
}

/// What the controller says, unless that is older than what the gateway sees.
fn why_none(service: &Service) -> Unavailable {
    let (reason, why) = match &service.ready {
        Some(condition) if !condition.holds => (condition.reason.as_str(), condition.message.as_str()),
        _ => (Reason::Starting.as_str(), "no pod is ready to answer"),
    };
    Unavailable {
        reason: reason.to_owned(),
        message: format!("EmbeddingService {} is not ready ({reason}): {why}", service.name),
        transient: !LASTING.iter().any(|lasting| lasting.as_str() == reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::{pod, service};

    fn names(service: &Service, pods: &[(Pod, Option<&str>)]) -> Result<Vec<String>, Unavailable> {
        let insights: Vec<_> = pods
            .iter()
            .map(|(_, reported)| Insight {
                id: PodId(0),
                digest: reported.map(str::to_owned),
                said_ready: false,
            })
            .collect();
        let found = endpoints(service, pods.iter().map(|(pod, _)| pod).zip(&insights))?;
        Ok(found.into_iter().map(|endpoint| endpoint.pod).collect())
    }

    fn refused(reason: &str, message: &str) -> ReadyCondition {
        ReadyCondition { holds: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn pods_that_are_ready_and_serve_the_recorded_space_answer() {
        let terminating = Pod { terminating: true, ..pod("terminating") };
        let unready = Pod { ready: false, ..pod("unready") };
        let nowhere = Pod { address: None, ..pod("nowhere") };
        let pods = [
            (pod("a"), Some("sha256:one")),
            (pod("other"), Some("sha256:two")),
            (pod("silent"), None),
            (terminating, Some("sha256:one")),
            (unready, Some("sha256:one")),
            (nowhere, Some("sha256:one")),
            (pod("b"), Some("sha256:one")),
        ];
        assert_eq!(names(&service("minilm"), &pods), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn nobody_answers_before_a_space_is_recorded() {
        let unrecorded = Service { digest: None, ..service("minilm") };
        let refusal = names(&unrecorded, &[(pod("a"), Some("sha256:one"))]).expect_err("no space");
        assert_eq!(refusal.reason, "Starting");
        assert!(refusal.transient);
    }

    #[test]
    fn at_zero_the_way_out_is_named() {
        let off = Service { replicas: 0, ..service("minilm") };
        let refusal = names(&off, &[(pod("a"), Some("sha256:one"))]).expect_err("switched off");
        assert_eq!(refusal.reason, "Off");
        assert!(!refusal.transient);
        assert!(
            refusal.message.contains("kubectl scale -n team emb/minilm --replicas=1"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn a_service_that_scales_sleeps_at_zero() {
        let asleep = Service { replicas: 0, scales: true, ..service("minilm") };
        let refusal = names(&asleep, &[]).expect_err("no pod");
        assert_eq!((refusal.reason.as_str(), refusal.transient), ("ScaledToZero", true));
        let last = [(pod("last"), Some("sha256:one"))];
        assert_eq!(names(&asleep, &last), Ok(vec!["last".to_owned()]), "it still answers");
    }

    #[test]
    fn a_pod_that_says_itself_that_it_is_ready_is_believed() {
        let unready = Pod { ready: false, ..pod("a") };
        let says = |said_ready| Insight { id: PodId(1), digest: None, said_ready };
        assert_eq!(unready.open_address(&says(true)), unready.address);
        assert_eq!(unready.open_address(&says(false)), None);
        let ending = Pod { terminating: true, ..unready };
        assert_eq!(ending.open_address(&says(true)), None);
    }

    #[test]
    fn the_controllers_reason_is_told() {
        let short = refused("Unschedulable", "no node has nvidia.com/gpu free");
        let unschedulable = Service { ready: Some(short), ..service("minilm") };
        let refusal = names(&unschedulable, &[]).expect_err("no pods");
        assert_eq!(
            refusal.message,
            "EmbeddingService team/minilm is not ready (Unschedulable): no node has nvidia.com/gpu free"
        );
        assert!(refusal.transient, "a node may come");
        let missing = Service { ready: Some(refused("ModelNotFound", "no such model")), ..service("minilm") };
        assert!(!names(&missing, &[]).expect_err("no pods").transient, "only a change of the spec helps");
    }

    #[test]
    fn a_condition_that_no_longer_holds_is_not_told() {
        let ready =
            ReadyCondition { holds: true, reason: "Serving".to_owned(), message: "1 of 1".to_owned() };
        let service = Service { ready: Some(ready), ..service("minilm") };
        let refusal = names(&service, &[]).expect_err("no pods");
        assert_eq!((refusal.reason.as_str(), refusal.transient), ("Starting", true));
        assert!(!refusal.message.contains("1 of 1"));
    }
}
