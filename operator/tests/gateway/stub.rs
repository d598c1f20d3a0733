//! Inference pods that are made up: they give credit, take their time, and die when told to.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kembed_queue::{
    credit::{GRANTED_HEADER, NO_CREDIT_HEADER, POD_LOAD_HEADER, PodLoad},
    wire::{NOT_READY_HEADER, SHOULD_RETRY_HEADER},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::sleep,
};

use crate::support::nobody;

/// Tokens that the gateway takes a short text for.
pub const SHORT: u64 = 2;

/// A text at which a pod dies.
pub const POISON: &str = "poison";

/// What a pod does, to be changed while it runs.
pub struct Stub {
    /// What it tells as its load; `None` for a pod of a release before credit.
    pub load: Mutex<Option<PodLoad>>,
    /// How long it takes over a request, in milliseconds.
    pub takes: AtomicU64,
    /// A request is answered when there is a permit.
    pub gate: Semaphore,
    /// Answers that it gives, before any others, instead of serving.
    pub fails: Mutex<VecDeque<Response<Bytes>>>,
    /// Bodies, in the order in which they came.
    pub came: Mutex<Vec<String>>,
    /// Requests that it has.
    pub in_hand: AtomicUsize,
    /// The most that it had at once.
    pub most: AtomicUsize,
    /// How often it died.
    pub deaths: AtomicUsize,
    death: Notify,
}

/// A pod that runs.
#[derive(Clone)]
pub struct StubPod {
    pub address: SocketAddr,
    pub stub: Arc<Stub>,
}

/// Of so many short texts at once, computed at so many tokens a second.
pub fn load(texts: u64, rate: u64) -> PodLoad {
    PodLoad { credit: texts * SHORT, work: SHORT, rate, sessions: 1 }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StubPod {
    /// A pod that answers at once, and gives credit for so many short texts.
    pub async fn start(texts: u64) -> Self {
        Self::with(Some(load(texts, 0)), Semaphore::MAX_PERMITS).await
    }

    /// A pod that answers nothing before it is let.
    pub async fn gated(texts: u64) -> Self {
        Self::with(Some(load(texts, 0)), 0).await
    }

    /// The same at an address that is free.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        Self::on(listener, address, Some(load(1, 0)), Semaphore::MAX_PERMITS)
    }

    pub async fn with(load: Option<PodLoad>, permits: usize) -> Self {
        // Its own also while it is dead.
        let address = nobody();
        let listener = TcpListener::bind(address).await.expect("a free port");
        Self::on(listener, address, load, permits)
    }

    fn on(listener: TcpListener, address: SocketAddr, load: Option<PodLoad>, permits: usize) -> Self {
        let stub = Arc::new(Stub {
            load: Mutex::new(load),
            takes: AtomicU64::new(0),
            gate: Semaphore::new(permits),
            fails: Mutex::default(),
            came: Mutex::default(),
            in_hand: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            deaths: AtomicUsize::new(0),
            death: Notify::new(),
        });
        tokio::spawn(live(stub.clone(), listener, address));
        Self { address, stub }
    }

    /// Has all that waits at the gate answered, and what comes.
    pub fn open(&self) {
        self.stub.gate.add_permits(1 << 20);
    }

    /// Breaks all connections, and comes back.
    pub fn die(&self) {
        self.stub.death.notify_one();
    }

    pub fn in_hand(&self) -> usize {
        self.stub.in_hand.load(Ordering::SeqCst)
    }

    pub fn came(&self) -> Vec<String> {
        lock(&self.stub.came).clone()
    }
}

/// Lives again and again on the same port.
async fn live(stub: Arc<Stub>, mut listener: TcpListener, address: SocketAddr) {
    loop {
        // All connections break when this is dropped.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    let stub = stub.clone();
                    let service = service_fn(move |request| answer(stub.clone(), request));
                    connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
                () = stub.death.notified() => break,
            }
        }
        drop((connections, listener));
        sleep(Duration::from_millis(20)).await;
        listener = TcpListener::bind(address).await.expect("its own port");
    }
}

/// Counts a request as in hand.
struct InHand<'a>(&'a Stub);

impl<'a> InHand<'a> {
    fn new(stub: &'a Stub) -> Self {
        let now = stub.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        stub.most.fetch_max(now, Ordering::SeqCst);
        Self(stub)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(stub: Arc<Stub>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let granted = request.headers().contains_key(GRANTED_HEADER);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    lock(&stub.came).push(text.clone());
    let in_hand = InHand::new(&stub);
    if text.contains(POISON) {
        stub.deaths.fetch_add(1, Ordering::SeqCst);
        stub.death.notify_one();
        std::future::pending::<()>().await;
    }
    let fails = lock(&stub.fails).pop_front();
    let mut response = match fails {
        Some(response) => response.map(Full::new),
        None => {
            stub.gate.acquire().await.expect("never closed").forget();
            let takes = stub.takes.load(Ordering::SeqCst);
            // The shortest sleep is a millisecond.
            if takes > 0 {
                sleep(Duration::from_millis(takes)).await;
            }
            Response::new(Full::new(body))
        }
    };
    drop(in_hand);
    if let Some(load) = lock(&stub.load).filter(|_| granted) {
        let load = load.to_string().parse().expect("digits");
        response.headers_mut().insert(POD_LOAD_HEADER, load);
    }
    Ok(response)
}

/// The answer of a pod that has no credit left.
pub fn no_credit() -> Response<Bytes> {
    error(StatusCode::SERVICE_UNAVAILABLE, &[(NO_CREDIT_HEADER, "true"), (SHOULD_RETRY_HEADER, "true")])
}

/// The answer of a pod whose process has just started again, and loads its model.
pub fn unready() -> Response<Bytes> {
    error(StatusCode::SERVICE_UNAVAILABLE, &[(NOT_READY_HEADER, "true"), (SHOULD_RETRY_HEADER, "true")])
}

/// The answer of a pod that failed, and another might not.
pub fn failure() -> Response<Bytes> {
    error(StatusCode::INTERNAL_SERVER_ERROR, &[(SHOULD_RETRY_HEADER, "true")])
}

pub fn error(status: StatusCode, headers: &[(&'static str, &'static str)]) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from("failed"));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
    }
    response
}
