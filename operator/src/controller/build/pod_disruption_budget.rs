//! The PodDisruptionBudget: `<name>`. One pod at a time, so that a drain never waits for ever: not even for the only
//! pod, nor for one that does not get ready.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{super::validate::Service, meta, selector};

pub(super) fn build(service: &Service) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(service, service.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(service)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
