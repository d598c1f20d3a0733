//! What the leader needs to know of a gateway's pod. Pure.

use core::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kembed_queue::report::INTERNAL_PORT;

/// Name of the port at which a gateway tells its load.
const PORT_NAME: &str = "internal";

/// A gateway that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its pod's, which no other ever gets.
    pub uid: String,
    /// Its pod's name, for logs.
    pub name: String,
    /// Where it tells its load.
    pub address: SocketAddr,
    /// Whether requests go to it, so that nothing is known without its word.
    pub serves: bool,
}

/// `None` for a pod that has no address yet.
pub fn gateway(pod: &Pod) -> Option<Gateway> {
    let status = pod.status.as_ref()?;
    let ip: IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    let port = pod.spec.as_ref().and_then(port).unwrap_or(INTERNAL_PORT);
    let mut conditions = status.conditions.iter().flatten();
    let ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Some(Gateway {
        uid: pod.metadata.uid.clone()?,
        name: pod.metadata.name.clone()?,
        address: SocketAddr::new(ip, port),
        serves: ready && pod.metadata.deletion_timestamp.is_none(),
    })
}

fn port(spec: &PodSpec) -> Option<u16> {
    let mut ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(PORT_NAME))?;
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Option<Gateway> {
        let mut pod = json!({
            "metadata": {"name": "kembed-gateway-1", "uid": "u"},
            "spec": {"containers": [{"name": "gateway", "ports": [
                {"name": "http", "containerPort": 8080}, {"name": "internal", "containerPort": 9000},
            ]}]},
            "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod);
        gateway(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_ready_gateway_serves_at_its_internal_port() {
        let ready = read(|_| ()).expect("it has an address");
        assert_eq!((ready.address.to_string().as_str(), ready.serves), ("10.0.0.7:9000", true));
        let plain = read(|pod| pod["spec"]["containers"][0]["ports"] = json!([])).expect("it has an address");
        assert_eq!(plain.address.port(), INTERNAL_PORT);
    }

    #[test]
    fn one_that_ends_or_is_not_ready_does_not_serve() {
        let ending = read(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        assert!(!ending.expect("it has an address").serves);
        let unready = read(|pod| pod["status"]["conditions"][0]["status"] = json!("False"));
        assert!(!unready.expect("it has an address").serves);
    }

    #[test]
    fn one_without_an_address_is_not_there_yet() {
        assert_eq!(read(|pod| pod["status"]["podIP"] = json!(null)), None);
    }
}
