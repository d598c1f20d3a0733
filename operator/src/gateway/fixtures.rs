//! Objects for the tests of this module.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    availability::{Life, Pod, PodName, Service},
    name::ServiceName,
};

/// A service in the namespace `team`, with the space `sha256:one`.
pub(crate) fn service(name: &str) -> Service {
    Service {
        name: ServiceName::new("team", name).expect("the test's own label"),
        created: 0,
        replicas: 1,
        scales: false,
        digest: Some("sha256:one".to_owned()),
        revision: None,
        ready: None,
        request_timeout: None,
        keys: Vec::new(),
        queue_timeout: None,
        queued: None,
        hedge_percent: None,
    }
}

/// A ready pod of the service `team/minilm` in its first life.
pub(crate) fn pod(name: &str) -> Pod {
    Pod {
        name: PodName { namespace: "team".to_owned(), name: name.to_owned() },
        service: ServiceName::new("team", "minilm").expect("two labels"),
        life: Life { uid: format!("uid-of-{name}"), restarts: 0 },
        address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))),
        ready: true,
        terminating: false,
    }
}
