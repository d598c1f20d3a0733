//! Stubs at the addresses of pods on fake nodes, which only pretend to run: this process answers for them. It is in the
//! network of the cluster's node, through which all pods reach such addresses.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use axum::{
    extract::{ConnectInfo, connect_info::Connected},
    http::request::Parts,
    serve::IncomingStream,
};
use kembed_queue::wire::POD_PORT;
use kembed_scaling::simulate::PodModel;
use tokio::net::TcpListener;

use super::{
    ALIKE, Stub, gpu,
    serve::{Stubs, router},
};
use crate::command::run;

/// What kwok gives pods addresses from.
const ADDRESSES: &str = "10.0.0.0/24";

/// One text of two words after the other, twelve a second: little enough that a few clients need several pods.
pub const MODEL: PodModel = PodModel { batch_seconds: 0., token_seconds: 0.02, batch_tokens: 4 };

/// Answers for pods on fake nodes from now on, until this process ends.
///
/// # Errors
/// If their addresses cannot be brought here.
pub async fn answer() -> anyhow::Result<()> {
    static ANSWERING: OnceLock<Result<(), String>> = OnceLock::new();
    let route = ["route", "replace", "local", ADDRESSES, "dev", "lo"];
    run("ip", &route, "").await.context("failed to route the addresses of fake pods")?;
    let answering = ANSWERING.get_or_init(|| listen().map_err(|error| format!("{error:#}")));
    answering.as_ref().map_err(|error| anyhow!("nobody answers for fake pods: {error}"))?;
    Ok(())
}

/// On a thread of its own: a test's runtime ends with the test.
fn listen() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, POD_PORT))
        .with_context(|| format!("failed to listen on port {POD_PORT}"))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || runtime.block_on(serve(listener));
    thread::Builder::new().name("fake pods".to_owned()).spawn(serve)?;
    Ok(())
}

async fn serve(listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
    let router = router(Pods::default()).into_make_service_with_connect_info::<Address>();
    // It ends only with the process.
    let _ = axum::serve(listener, router).await;
}

/// The pod that a connection is meant for.
#[derive(Clone, Copy, Debug)]
struct Address(Option<IpAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Address {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().ok().map(|address| address.ip()))
    }
}

#[derive(Clone, Default)]
struct Pods(Arc<Mutex<HashMap<Option<IpAddr>, Stub>>>);

impl Stubs for Pods {
    fn asked(&self, parts: &Parts) -> Stub {
        let address = parts.extensions.get().and_then(|ConnectInfo(Address(address))| *address);
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Such nodes have GPUs, and their pods want them.
        pods.entry(address).or_insert_with(|| Stub::new(MODEL, Duration::ZERO).on(gpu(ALIKE))).clone()
    }
}
