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
    Router,
    body::Bytes,
    extract::{ConnectInfo, State, connect_info::Connected},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::{get, post},
    serve::IncomingStream,
};
use kembed_queue::wire::{INFO_PATH, LIVE_PATH, POD_PORT, READY_PATH};
use kembed_scaling::simulate::PodModel;
use tokio::net::TcpListener;

use super::{
    Stub,
    serve::{MODELS_PATH, models},
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
    let router = Router::new()
        .route(LIVE_PATH, get(async || "ok"))
        .route(READY_PATH, get(ready))
        .route(INFO_PATH, get(info))
        .route(MODELS_PATH, get(models))
        .route("/v1/embeddings", post(embeddings))
        .with_state(Pods::default());
    // It ends only with the process.
    let _ = axum::serve(listener, router.into_make_service_with_connect_info::<Address>()).await;
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

impl Pods {
    fn of(&self, ConnectInfo(Address(address)): ConnectInfo<Address>) -> Stub {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pods.entry(address).or_insert_with(|| Stub::new(MODEL, Duration::ZERO)).clone()
    }
}

async fn ready(State(pods): State<Pods>, at: ConnectInfo<Address>) -> StatusCode {
    pods.of(at).readiness()
}

async fn info(State(pods): State<Pods>, at: ConnectInfo<Address>) -> Response {
    pods.of(at).information()
}

async fn embeddings(
    State(pods): State<Pods>,
    at: ConnectInfo<Address>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pod = pods.of(at);
    pod.embed(&headers, &body).await
}
