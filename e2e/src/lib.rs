//! Tests of kembed on a real Kubernetes cluster, and what they share.
//!
//! `tests/cluster` runs many tests at once, each in a namespace of its own ([`with_temp_ns`]); `tests/release` changes
//! the installation itself and so runs alone, afterwards. Both need `KUBECONFIG`, `kubectl` and `helm`, and a network
//! in which addresses of pods and Services answer: `e2e/cluster/cluster exec -- cargo test -p e2e`.

pub mod client;
pub mod command;
pub mod golden;
pub mod hub;
pub mod hub_client;
pub mod installation;
pub mod load;
pub mod namespace;
pub mod pod;
pub mod report;
pub mod service;
pub mod wait;

pub use client::Client;
pub use installation::installation;
pub use namespace::{TempNamespace, with_temp_ns};
