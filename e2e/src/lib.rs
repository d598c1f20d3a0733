//! Tests of kembed on a real Kubernetes cluster, and what they share.
//!
//! `tests/cluster` runs many tests at once, each in a namespace of its own ([`with_temp_ns`]), and so does `tests/capacity`,
//! while an autoscaler of nodes runs. `tests/crash`, `tests/rbac`, `tests/recovery` and `tests/release` disturb or judge the
//! installation itself, and so run alone, afterwards, in this order. All need `KUBECONFIG`, `kubectl` and `helm`, and a
//! network in which addresses of pods and Services answer; `make e2e` sees to that.

pub mod audit;
pub mod client;
pub mod collector;
pub mod collector_client;
pub mod command;
pub mod container;
pub mod crowd;
pub mod disruption;
pub mod golden;
pub mod hex;
pub mod hub;
pub mod hub_client;
pub mod installation;
pub mod leader;
pub mod load;
pub mod namespace;
pub mod node_pool;
pub mod pod;
pub mod process;
pub mod replay;
pub mod report;
pub mod service;
pub mod stub;
pub mod wait;
pub mod watched;
pub mod zero;

pub use client::Client;
pub use installation::installation;
pub use namespace::{TempNamespace, with_temp_ns};
