//! Pods that take their time: the queue, the credit and the batches are a real pod's, and in place of computing they sleep.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use kembed_queue::{
    credit::{NO_CREDIT_HEADER, POD_LOAD_HEADER, PodLoad},
    wire::{INFO_PATH, LANE_HEADER, Lane, SHOULD_RETRY_HEADER},
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    client::block_on,
    pod::{Pod, SESSIONS},
    quick_pod::info,
};

/// Tokens of each text of a request, with commas between. The texts themselves are not looked at.
pub const TEXTS_HEADER: &str = "x-bench-texts";
/// The number of a request.
pub const NUMBER_HEADER: &str = "x-bench-number";

/// Tokens that a pod takes of each lane (`inference-pod --help`).
pub const CREDIT: u64 = 2048;

/// A pod, which may be asked what it did.
#[derive(Clone)]
pub struct BusyPod {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Something came that a session could compute.
    came: Condvar,
}

struct Desk {
    pod: Pod,
    in_hand: HashMap<usize, InHand>,
    next: usize,
    /// When each request came, and its number.
    log: Vec<(Instant, usize)>,
}

struct InHand {
    texts: Vec<u32>,
    lane: Lane,
    left: usize,
    done: oneshot::Sender<PodLoad>,
}

impl BusyPod {
    /// Starts one that is so many times as fast as MiniLM on a core (`queue/benches/balancing/pod.rs`).
    pub fn start(speed: f64) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("an open socket");
        let desk = Desk { pod: Pod::new(speed, CREDIT), in_hand: HashMap::new(), next: 0, log: Vec::new() };
        let shared = Arc::new(Shared { desk: Mutex::new(desk), came: Condvar::new() });
        for _ in 0..SESSIONS {
            let shared = shared.clone();
            std::thread::spawn(move || shared.compute());
        }
        let serving = shared.clone();
        std::thread::spawn(move || block_on(serve(listener, serving)));
        Self { address, shared }
    }

    /// Tokens in hand.
    pub fn in_hand(&self) -> u64 {
        self.shared.desk().pod.in_hand()
    }

    /// Numbers of the requests, in the order in which they came.
    pub fn came(&self) -> Vec<usize> {
        self.shared.desk().log.iter().map(|(_, number)| *number).collect()
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session: one batch after the other.
    fn compute(&self) {
        let mut desk = self.desk();
        loop {
            let Some((time, batch)) = desk.pod.begin(Instant::now()) else {
                desk = self.came.wait(desk).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(desk);
            std::thread::sleep(time);
            desk = self.desk();
            desk.pod.end();
            batch.into_iter().for_each(|request| desk.done(request));
        }
    }
}

impl Desk {
    fn take(&mut self, headers: &HeaderMap) -> Option<oneshot::Receiver<PodLoad>> {
        let text =
            |name| headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
        let lane = if text(LANE_HEADER) == Some("bulk") { Lane::Bulk } else { Lane::Interactive };
        if !self.pod.has_credit(lane) {
            return None;
        }
        let texts = text(TEXTS_HEADER).unwrap_or("16").split(',').map(|n| n.parse().expect("a number"));
        let (texts, now, (done, answered)) =
            (texts.collect::<Vec<u32>>(), Instant::now(), oneshot::channel());
        self.log.push((now, text(NUMBER_HEADER).and_then(|n| n.parse().ok()).unwrap_or(0)));
        self.pod.take(self.next, &texts, lane, now);
        self.in_hand.insert(self.next, InHand { left: texts.len(), texts, lane, done });
        self.next += 1;
        Some(answered)
    }

    /// One text of a request is done.
    fn done(&mut self, request: usize) {
        let left = self.in_hand.get_mut(&request).map_or(0, |it| {
            it.left -= 1;
            it.left
        });
        if left > 0 {
            return;
        }
        if let Some(InHand { texts, lane, done, .. }) = self.in_hand.remove(&request) {
            self.pod.give(&texts, lane);
            let work = texts.iter().copied().map(u64::from).sum();
            // Who asked may have gone.
            let _ = done.send(self.pod.load(work));
        }
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a runtime");
    loop {
        let (stream, _) = listener.accept().await.expect("there are files");
        stream.set_nodelay(true).expect("an open socket");
        let shared = shared.clone();
        let service = service_fn(move |request| answer(request, shared.clone()));
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == INFO_PATH {
        return Ok(Response::new(info().into()));
    }
    let _ = body.collect().await;
    let taken = shared.desk().take(&head.headers);
    let Some(done) = taken else {
        let load = shared.desk().pod.load(0);
        let refusal =
            Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header(NO_CREDIT_HEADER, "true");
        let refusal = refusal.header(SHOULD_RETRY_HEADER, "true").header(POD_LOAD_HEADER, load.to_string());
        return Ok(refusal.body(Full::default()).expect("good headers"));
    };
    shared.came.notify_all();
    let load = done.await.expect("each request is computed");
    let answer = Response::builder().header(POD_LOAD_HEADER, load.to_string());
    Ok(answer.body(Full::from("{\"data\":[]}")).expect("good headers"))
}
