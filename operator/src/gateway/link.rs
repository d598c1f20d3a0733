//! The one connection to another gateway, over which all that is forwarded to it goes.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Time for a connection to come about and for its other end to answer once: in the same cluster it takes a millisecond.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the other end is asked whether it is there, and how long it has to say so: a gateway whose node dies is
/// noticed within two seconds. One whose process dies is noticed at once.
const PING: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// Requests at the same time over one connection.
pub const STREAMS: u32 = 16_384;

/// Bytes of a request's body that are sent along with its head: about as many as all else that a request which waits takes at
/// either end. What a longer one has more is sent when its pod is known.
pub const OFFERED: u32 = 16 * 1024;

/// Bytes of one answer that may lie here unread because its client reads slowly, and bytes of all of them. The latter is
/// so much more that 4096 such clients hold up nobody else.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 4096;

/// A connection that is open, or was. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Link {
    sender: http2::SendRequest<Full<Bytes>>,
    /// A permit for each request that may still be sent.
    room: Arc<Semaphore>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// As many requests as may are on their way.
    #[error("as many requests as may are forwarded to this gateway already")]
    Full,
    /// The connection broke, or the other end took the request back.
    #[error("failed to get an answer from another gateway")]
    Broke(#[source] hyper::Error),
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    #[error("failed to speak HTTP/2")]
    Speak(#[source] hyper::Error),
    #[error("no answer within {OPEN_TIMEOUT:?}")]
    TimedOut,
}

impl Link {
    /// Sends a request. What comes before the head of its answer is waited for without a limit of time.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, LinkError> {
        let _room = self.room.try_acquire().map_err(|_| LinkError::Full)?;
        self.sender.clone().send_request(request).await.map_err(LinkError::Broke)
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    async fn open(address: SocketAddr) -> Result<(Self, JoinHandle<()>), OpenError> {
        let stream = TcpStream::connect(address).await.map_err(OpenError::Connect)?;
        // Without it, it is only slower.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(OpenError::Speak)?;
        // By itself, so that what is on its way is answered also when nothing more is to be sent.
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, error = &error as &dyn Error, "the connection to a gateway broke off");
            }
        });
        let link = Self { sender, room: Arc::new(Semaphore::new(STREAMS as usize)) };
        link.greet(address).await.map_err(OpenError::Speak)?;
        Ok((link, driver))
    }

    /// A process that was stopped still accepts connections: only an answer shows that it is there.
    async fn greet(&self, address: SocketAddr) -> Result<(), hyper::Error> {
        let request = Request::builder().method(Method::HEAD).uri(format!("http://{address}/"));
        let request = request.body(Full::default()).expect("an address makes a URL");
        self.sender.clone().send_request(request).await.map(drop)
    }
}

/// Keeps a connection open until `ended`, and tells whenever it opens, closes or does not come about.
pub async fn keep(address: SocketAddr, ended: CancellationToken, tell: impl Fn(Option<Link>)) {
    let keep = async {
        loop {
            match timeout(OPEN_TIMEOUT, Link::open(address)).await.unwrap_or(Err(OpenError::TimedOut)) {
                Ok((link, driver)) => {
                    tell(Some(link));
                    // It does not panic, and if it did, the connection would be gone too.
                    let _ = driver.await;
                }
                Err(error) => {
                    tracing::debug!(%address, error = &error as &dyn Error, "failed to reach a gateway");
                }
            }
            tell(None);
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = keep => (),
        () = ended.cancelled() => (),
    }
}
