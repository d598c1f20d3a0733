//! The NetworkPolicy: `<name>`. In from gateways, controller and metrics; out to DNS, to port 443 for downloads, and to
//! what the platform team adds.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kembed_queue::wire::POD_PORT;

use super::{
    super::{config::Config, validate::Service},
    meta, selector,
};

pub(super) fn build(service: &Service, config: &Config) -> NetworkPolicy {
    let to_ports = |ports| NetworkPolicyEgressRule { ports: Some(ports), to: None };
    let egress = vec![to_ports(vec![port("UDP", 53), port("TCP", 53)]), to_ports(vec![port("TCP", 443)])];
    NetworkPolicy {
        metadata: meta(service, service.name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(service)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(config.network_policy.from.clone()),
                ports: Some(vec![port("TCP", POD_PORT)]),
            }]),
            egress: Some([egress, config.network_policy.extra_egress.clone()].concat()),
        }),
    }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number.into())),
        protocol: Some(protocol.into()),
        end_port: None,
    }
}
