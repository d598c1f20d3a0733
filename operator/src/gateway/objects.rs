//! What the gateway keeps of the objects that it watches.

use core::net::{IpAddr, SocketAddr};

use k8s_openapi::{api::core::v1 as corev1, apimachinery::pkg::apis::meta::v1::Condition};
use kembed_crds::{Duration, SERVICE_LABEL, conditions::ConditionType};
use kembed_queue::wire::POD_PORT;
use kube::core::Object;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    availability::{Life, Pod, PodName, ReadyCondition, Service},
    keys::{Allowance, ApiKey, KeyHash},
    name::ServiceName,
};

/// An EmbeddingService with the few fields that the gateway reads. That costs less memory than the whole object, and
/// while an older gateway still runs, fields and values that only a newer one knows do no harm.
pub type WatchedService = Object<WatchedSpec, WatchedStatus>;

/// Of the spec.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedSpec {
    #[serde(default = "one")]
    replicas: i32,
    /// Only whether there is any.
    #[serde(default)]
    scaling: Option<IgnoredAny>,
    #[serde(default)]
    traffic: Option<WatchedTraffic>,
}

/// Of the limits on requests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchedTraffic {
    #[serde(default)]
    request_timeout: Option<Duration>,
    #[serde(default)]
    api_keys: Vec<kembed_crds::ApiKey>,
    #[serde(default)]
    queue_timeout: Option<Duration>,
    #[serde(default)]
    max_queued_requests: Option<i32>,
    #[serde(default)]
    hedge_percent: Option<i32>,
}

/// Of the status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct WatchedStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    space: Option<WatchedSpace>,
}

/// Of the recorded space.
#[derive(Clone, Debug, Deserialize)]
pub struct WatchedSpace {
    digest: String,
    #[serde(default)]
    revision: Option<String>,
}

fn one() -> i32 {
    1
}

/// `None` for an object without a proper name, which no API server sends.
pub fn service(object: WatchedService) -> Option<Service> {
    let name = ServiceName::new(object.metadata.namespace.as_deref()?, object.metadata.name.as_deref()?)?;
    let created = object.metadata.creation_timestamp.map_or(0, |time| time.0.as_second());
    let traffic = object.spec.traffic.unwrap_or_default();
    let time = |text: Option<Duration>| text.and_then(|text| text.parse().ok());
    let (conditions, space) =
        object.status.map_or((Vec::new(), None), |status| (status.conditions, status.space));
    let (digest, revision) = space.map(|space| (space.digest, space.revision)).unzip();
    let ready = conditions.into_iter().find(|condition| condition.type_ == ConditionType::Ready.as_str());
    Some(Service {
        name,
        created,
        replicas: object.spec.replicas,
        scales: object.spec.scaling.is_some(),
        digest,
        revision: revision.flatten(),
        ready: ready.map(|condition| ReadyCondition {
            holds: condition.status == "True",
            reason: condition.reason,
            message: condition.message,
        }),
        request_timeout: time(traffic.request_timeout),
        queue_timeout: time(traffic.queue_timeout),
        queued: traffic.max_queued_requests.map(|count| usize::try_from(count).unwrap_or(0)),
        hedge_percent: traffic.hedge_percent.and_then(|percent| u32::try_from(percent).ok()),
        keys: traffic.api_keys.into_iter().map(key).collect(),
    })
}

/// Limits are at least 1, as the API server makes sure.
fn key(key: kembed_crds::ApiKey) -> ApiKey {
    ApiKey {
        hash: KeyHash::parse(&key.sha256),
        name: key.name,
        allowance: Allowance {
            requests_per_second: key.requests_per_second.map(|limit| limit.max(1).unsigned_abs()),
            tokens_per_minute: key.tokens_per_minute.map(|limit| limit.max(1).unsigned_abs()),
        },
    }
}

/// Name of the port at which a pod answers.
const PORT_NAME: &str = "http";

/// `None` for a pod that belongs to no service.
pub fn pod(object: corev1::Pod) -> Option<Pod> {
    let metadata = object.metadata;
    let namespace = metadata.namespace?;
    let service = ServiceName::new(&namespace, metadata.labels?.get(SERVICE_LABEL)?)?;
    let status = object.status.unwrap_or_default();
    let port = object.spec.as_ref().and_then(|spec| port(spec, PORT_NAME)).unwrap_or(POD_PORT);
    // One that has ended keeps its address in its status when another pod may have it long since.
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ip: Option<IpAddr> = status.pod_ip.filter(|_| !has_ended).and_then(|ip| ip.parse().ok());
    let containers = status.container_statuses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    Some(Pod {
        name: PodName { namespace, name: metadata.name? },
        service,
        life: Life {
            uid: metadata.uid?,
            restarts: containers.iter().map(|container| container.restart_count).sum(),
        },
        address: ip.map(|ip| SocketAddr::new(ip, port)),
        ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        terminating: metadata.deletion_timestamp.is_some(),
    })
}

/// A gateway, as its pod tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayPod {
    /// Name of the pod, and of the gateway.
    pub name: String,
    /// Which life of it.
    pub life: Life,
    /// Where other gateways reach it, once it has an address.
    pub address: Option<SocketAddr>,
    /// Whether it is ready and does not end.
    pub serves: bool,
}

/// Port at which a gateway is reached by others, by its name, and where the pod does not tell.
const INTERNAL_PORT_NAME: &str = "internal";
const INTERNAL_PORT: u16 = 8082;

/// `None` for a pod without a name, which no API server sends.
pub fn gateway(object: corev1::Pod) -> Option<GatewayPod> {
    let metadata = object.metadata;
    let status = object.status.unwrap_or_default();
    let spec = object.spec.as_ref();
    let port = spec.and_then(|spec| port(spec, INTERNAL_PORT_NAME)).unwrap_or(INTERNAL_PORT);
    let ip: Option<IpAddr> = status.pod_ip.and_then(|ip| ip.parse().ok());
    let containers = status.container_statuses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is_ready =
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(GatewayPod {
        name: metadata.name?,
        life: Life {
            uid: metadata.uid?,
            restarts: containers.iter().map(|container| container.restart_count).sum(),
        },
        address: ip.map(|ip| SocketAddr::new(ip, port)),
        serves: is_ready && metadata.deletion_timestamp.is_none(),
    })
}

fn port(spec: &corev1::PodSpec, name: &str) -> Option<u16> {
    let mut ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service_of(object: Value) -> Option<Service> {
        service(serde_json::from_value(object).expect("an EmbeddingService"))
    }

    fn full() -> Value {
        json!({
            "apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
            "metadata": {"namespace": "team", "name": "minilm", "creationTimestamp": "1970-01-01T00:01:00Z"},
            "spec": {
                "model": {"uri": "hf://a/b"}, "replicas": 3, "scaling": {"minReplicas": 0},
                "traffic": {
                    "queueTimeout": "10m", "requestTimeout": "1m30s", "maxQueuedRequests": 10, "hedgePercent": 5,
                    "apiKeys": [
                        {"name": "search", "sha256": "ab".repeat(32), "requestsPerSecond": 5, "tokensPerMinute": 600},
                        {"name": "broken", "sha256": "secret", "tokensPerMinute": 0},
                    ],
                },
            },
            "status": {
                "conditions": [
                    {"type": "Progressing", "status": "True", "reason": "RollingOut", "message": "",
                     "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Ready", "status": "False", "reason": "Unschedulable", "message": "no gpu",
                     "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
                "space": {"digest": "sha256:one", "revision": "c0ffee", "dimension": 384, "maxTokens": 256},
            },
        })
    }

    #[test]
    fn of_a_service_what_matters_is_kept() {
        let read = service_of(full()).expect("a named object");
        assert_eq!(
            read,
            Service {
                name: ServiceName::new("team", "minilm").expect("two labels"),
                created: 60,
                replicas: 3,
                scales: true,
                digest: Some("sha256:one".to_owned()),
                revision: Some("c0ffee".to_owned()),
                ready: Some(ReadyCondition {
                    holds: false,
                    reason: "Unschedulable".to_owned(),
                    message: "no gpu".to_owned()
                }),
                request_timeout: Some(std::time::Duration::from_secs(90)),
                queue_timeout: Some(std::time::Duration::from_secs(600)),
                queued: Some(10),
                hedge_percent: Some(5),
                keys: vec![
                    ApiKey {
                        name: "search".to_owned(),
                        hash: KeyHash::parse(&"ab".repeat(32)),
                        allowance: Allowance { requests_per_second: Some(5), tokens_per_minute: Some(600) },
                    },
                    ApiKey {
                        name: "broken".to_owned(),
                        hash: None,
                        allowance: Allowance { requests_per_second: None, tokens_per_minute: Some(1) },
                    },
                ],
            }
        );
    }

    /// The few fields here bear the names that they have in the API.
    #[test]
    fn the_names_are_those_of_the_api() {
        let typed: kembed_crds::EmbeddingService = serde_json::from_value(full()).expect("the whole object");
        let written = serde_json::to_value(&typed).expect("an API object always serialises");
        assert_eq!(service_of(written), service_of(full()));
    }

    #[test]
    fn a_new_service_has_nothing_but_its_spec() {
        let new = json!({"metadata": {"namespace": "team", "name": "minilm"}, "spec": {"model": {"uri": "hf://a/b"}}});
        let read = service_of(new).expect("a named object");
        assert_eq!((read.replicas, read.scales, read.digest, read.ready), (1, false, None, None));
    }

    fn pod_of(object: Value) -> Option<Pod> {
        pod(serde_json::from_value(object).expect("a Pod"))
    }

    fn running() -> Value {
        json!({
            "metadata": {"namespace": "team", "name": "minilm-1", "uid": "u", "labels": {"kembed.dev/service": "minilm"}},
            "status": {
                "podIP": "10.0.0.7",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "inference-pod", "restartCount": 2, "ready": true, "image": "", "imageID": ""}],
            },
        })
    }

    #[test]
    fn of_a_pod_what_matters_is_kept() {
        let read = pod_of(running()).expect("a pod of a service");
        assert_eq!(
            (read.service.to_string().as_str(), read.ready, read.terminating),
            ("team/minilm", true, false)
        );
        assert_eq!(read.life, Life { uid: "u".to_owned(), restarts: 2 });
        assert_eq!(read.address, Some(([10, 0, 0, 7], POD_PORT).into()));
    }

    #[test]
    fn a_pod_may_listen_at_another_port() {
        let mut other = running();
        let ports = json!([{"name": "metrics", "containerPort": 1}, {"name": "http", "containerPort": 9000}]);
        other["spec"] = json!({"containers": [{"name": "proxy"}, {"name": "inference-pod", "ports": ports}]});
        assert_eq!(pod_of(other).expect("a pod of a service").address, Some(([10, 0, 0, 7], 9000).into()));
    }

    #[test]
    fn a_pod_that_ends_is_known_to_end() {
        let mut ending = running();
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(pod_of(ending).expect("a pod of a service").terminating);
    }

    #[test]
    fn a_pod_that_has_ended_is_nowhere() {
        let mut evicted = running();
        evicted["status"]["phase"] = json!("Failed");
        assert_eq!(pod_of(evicted).expect("a pod of a service").address, None);
    }

    #[test]
    fn pods_of_no_service_are_left_out() {
        let mut other = running();
        other["metadata"]["labels"] = json!({"app": "x"});
        assert_eq!(pod_of(other), None);
    }

    #[test]
    fn a_pod_that_was_just_made_is_not_ready() {
        let mut new = running();
        new["status"] = json!({});
        let read = pod_of(new).expect("a pod of a service");
        assert_eq!((read.ready, read.address), (false, None));
    }

    #[test]
    fn a_gateway_serves_while_it_is_ready_and_does_not_end() {
        let pod = |status: Value, deleted: Option<&str>| {
            gateway(
                serde_json::from_value(json!({
                    "metadata": {"namespace": "kembed", "name": "gateway-1", "uid": "u", "deletionTimestamp": deleted},
                    "spec": {"containers": [{"name": "gateway", "ports": [
                        {"name": "http", "containerPort": 8080}, {"name": "internal", "containerPort": 9082},
                    ]}]},
                    "status": status,
                }))
                .expect("a pod"),
            )
            .expect("a gateway")
        };
        let status = |ready: &str| {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let containers =
                json!([{"name": "gateway", "image": "i", "imageID": "i", "ready": true, "restartCount": 2}]);
            json!({"podIP": "10.0.0.7", "conditions": conditions, "containerStatuses": containers})
        };
        let ready = pod(status("True"), None);
        assert_eq!((ready.address, ready.serves), ("10.0.0.7:9082".parse().ok(), true));
        assert_eq!(ready.life, Life { uid: "u".to_owned(), restarts: 2 });
        assert!(!pod(status("False"), None).serves);
        assert!(!pod(status("True"), Some("2026-01-01T00:00:00Z")).serves);
        let new = pod(json!({}), None);
        assert_eq!((new.address, new.serves), (None, false));
    }
}
