//! The Deployment: `<name>`, with the count that the spec says.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kembed_crds::SERVICE_LABEL;

use super::{
    super::{config::Config, validate::Service},
    labels, meta, pod_spec, selector,
};

/// The pods' node may be removed although the cache is on its disk: it is only a cache.
const SAFE_TO_EVICT: (&str, &str) =
    ("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", pod_spec::CACHE_VOLUME);

/// While it starts, Karpenter takes no pod from its node to save money: somebody may wait for it. It counts from when the
/// kubelet took the pod, so that what a node takes to come is not part of it; and as long as a wake waits for a pod, it
/// waits here. A pod that is ready sooner keeps its node for the rest of that time: to take the annotation away would need a verb on all pods.
/// A release of Karpenter that knows only `true` takes no notice.
const START_SHIELD: (&str, &str) = ("karpenter.sh/do-not-disrupt", "10m");

pub(super) fn build(service: &Service, config: &Config, image: &str) -> Deployment {
    Deployment {
        metadata: meta(service, service.name.clone()),
        spec: Some(DeploymentSpec {
            replicas: Some(service.replicas),
            revision_history_limit: Some(2),
            // Gateways ask a pod which space it serves once it says that it is ready. Until they know, its predecessor
            // stays: without this second it can be gone before its successor gets requests.
            min_ready_seconds: Some(1),
            selector: selector(service),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(service.max_surge.clone()),
                    max_unavailable: Some(service.max_unavailable.clone()),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(pod_meta(service)),
                spec: Some(pod_spec::build(service, config, image)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_meta(service: &Service) -> ObjectMeta {
    let mut pod_labels = service.pod_template.labels.clone();
    pod_labels.extend(labels(service));
    pod_labels.insert(SERVICE_LABEL.into(), service.name.clone());
    let mut annotations = service.pod_template.annotations.clone();
    for (name, value) in [SAFE_TO_EVICT, START_SHIELD] {
        annotations.entry(name.into()).or_insert_with(|| value.into());
    }
    ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..ObjectMeta::default() }
}
