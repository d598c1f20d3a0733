//! The Service: `<name>`, an alias of the gateway's Service. There are no endpoints to keep up to date, and nothing
//! changes when gateways roll.

use k8s_openapi::api::core::v1::{Service as KubeService, ServiceSpec};

use super::{
    super::{config::Config, validate::Service},
    meta,
};

pub(super) fn build(service: &Service, config: &Config) -> KubeService {
    KubeService {
        metadata: meta(service, service.name.clone()),
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".into()),
            external_name: Some(config.gateway_host.clone()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
