//! One connection to the pod.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet};

/// Where texts are sent.
pub const EMBEDDINGS: &str = "/v1/embeddings";
/// Where the pod says whether it is ready.
pub const READY: &str = "/health/ready";

/// For a pod to say that it is not ready.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is kept open. It lives on the [`LocalSet`] that it was opened on.
pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    /// Connects; nothing if nobody listens.
    pub async fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).expect("an open socket");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("no bytes are sent yet");
        tokio::task::spawn_local(connection);
        Some(Self(sender))
    }

    /// The whole answer.
    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> (StatusCode, Bytes) {
        let request = Request::builder().method(method).uri(path).header("host", "pod");
        let request = request.header("content-type", "application/json");
        let answer =
            self.send(request.body(Full::new(body)).expect("a good request")).await.expect("an answer");
        (answer.status(), answer.into_body())
    }

    /// The whole answer to a request of any kind.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
        self.0.ready().await?;
        let (head, body) = self.0.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// Whether the pod is ready.
pub fn ready(address: SocketAddr) -> bool {
    block_on(async {
        let asked = async { Some(Client::open(address).await?.ask(Method::GET, READY, Bytes::new()).await) };
        matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Some((StatusCode::OK, _))))
    })
}

/// Runs something on this thread alone, together with the connections that it opens.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(work))
}

/// The value below which that part of the sorted values lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}
