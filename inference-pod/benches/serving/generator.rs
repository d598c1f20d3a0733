//! A closed loop: so many connections, each of which sends its next request when it has the last one's answer.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet};

/// Between two looks at the pod's health.
const PROBE: Duration = Duration::from_millis(20);

/// What was measured.
pub struct Measured {
    /// How long was counted.
    pub seconds: f64,
    /// Of each request that ended in that time, in seconds, sorted.
    pub latencies: Vec<f64>,
    /// Requests that were answered in all, before and after too.
    pub answered: usize,
    /// Of `/health/ready` meanwhile, in seconds, sorted.
    pub health: Vec<f64>,
}

/// Loads the pod for so long. What comes before `warm_up` has passed is not counted.
pub fn load(
    address: SocketAddr,
    bodies: &[Bytes],
    connections: usize,
    warm_up: Duration,
    counted: Duration,
) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (latencies, health) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let (next, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let start = Instant::now() + warm_up;
    let end = start + counted;
    let local = LocalSet::new();
    for _ in 0..connections {
        let (bodies, next, answered, latencies) =
            (bodies.to_vec(), next.clone(), answered.clone(), latencies.clone());
        local.spawn_local(async move {
            let mut connection = connect(address).await;
            while Instant::now() < end {
                let body = bodies[next.replace(next.get() + 1) % bodies.len()].clone();
                let took = ask(&mut connection, Method::POST, "/v1/embeddings", body).await;
                answered.set(answered.get() + 1);
                // A request counts in full if it ends in the time that counts.
                let now = Instant::now();
                if start <= now && now < end {
                    latencies.borrow_mut().push(took);
                }
            }
        });
    }
    let probed = health.clone();
    local.spawn_local(async move {
        let mut connection = connect(address).await;
        while Instant::now() < end {
            tokio::time::sleep(PROBE).await;
            let took = ask(&mut connection, Method::GET, "/health/ready", Bytes::new()).await;
            if start <= Instant::now() {
                probed.borrow_mut().push(took);
            }
        }
    });
    runtime.block_on(local);
    Measured {
        seconds: counted.as_secs_f64(),
        latencies: sorted(latencies.take()),
        answered: answered.get(),
        health: sorted(health.take()),
    }
}

/// Whether the pod is ready.
pub fn ready(address: SocketAddr) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(async {
        let Ok(stream) = TcpStream::connect(address).await else { return false };
        let mut connection = handshake(stream).await;
        let request = Request::get("/health/ready").header("host", "pod");
        let request = request.body(Full::new(Bytes::new())).expect("a good request");
        connection.send_request(request).await.is_ok_and(|response| response.status() == StatusCode::OK)
    }))
}

/// The value below which that part of the sorted values lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    handshake(TcpStream::connect(address).await.expect("the pod listens")).await
}

async fn handshake(stream: TcpStream) -> SendRequest<Full<Bytes>> {
    stream.set_nodelay(true).expect("an open socket");
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("no bytes are sent yet");
    tokio::task::spawn_local(connection);
    sender
}

/// Seconds until the whole answer is there.
async fn ask(connection: &mut SendRequest<Full<Bytes>>, method: Method, path: &str, body: Bytes) -> f64 {
    let request = Request::builder().method(method).uri(path).header("host", "pod");
    let request = request.header("content-type", "application/json");
    let request = request.body(Full::new(body)).expect("a good request");
    let start = Instant::now();
    connection.ready().await.expect("the connection is kept open");
    let response = connection.send_request(request).await.expect("an answer");
    let status = response.status();
    let answer = response.into_body().collect().await.expect("a whole answer").to_bytes();
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    start.elapsed().as_secs_f64()
}
