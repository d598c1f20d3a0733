//! The way to another gateway: a connection from each thread that serves clients, over which goes all that this thread
//! forwards. So no request wakes another thread on its way.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::select_all;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    runtime::{self, Handle},
    sync::Semaphore,
    task::{JoinError, JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often the other end is asked whether it is there.
const PING: Duration = Duration::from_secs(1);

/// How long another gateway is waited for before it is taken for dead.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection to come about and for its other end to answer once: in the same cluster it takes a millisecond.
    pub opening: Duration,
    /// For the other end to say that it is there when it is asked.
    pub silence: Duration,
}

impl Default for Patience {
    /// A gateway whose node dies is noticed within two seconds. One whose process dies is noticed at once.
    fn default() -> Self {
        Self { opening: Duration::from_secs(1), silence: Duration::from_secs(1) }
    }
}

/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// Requests at the same time to one gateway, and over each connection to it.
pub const STREAMS: u32 = 16_384;

/// Bytes of a request's body that are sent along with its head: about as many as all else that a request which waits takes at
/// either end. What a longer one has more is sent when its pod is known.
pub const OFFERED: u32 = 16 * 1024;

/// Bytes of one answer that may lie here unread because its client reads slowly, and bytes of all of them. The latter is
/// so much more that 4096 such clients hold up nobody else.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 4096;

/// Connections that are open, or were. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Link {
    lines: Arc<[Line]>,
    /// A permit for each request that may still be sent.
    room: Arc<Semaphore>,
}

/// The connection of one thread.
#[derive(Debug)]
struct Line {
    /// That thread's runtime.
    runtime: runtime::Id,
    sender: http2::SendRequest<Full<Bytes>>,
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
    #[error("no answer in time")]
    TimedOut,
    #[error("a thread that was to connect is gone")]
    Gone(#[source] JoinError),
}

impl Link {
    /// Sends a request. What comes before the head of its answer is waited for without a limit of time.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, LinkError> {
        let _room = self.room.try_acquire().map_err(|_| LinkError::Full)?;
        self.line().sender.clone().send_request(request).await.map_err(LinkError::Broke)
    }

    /// Whether there is a thread that can send nothing any more. Then the others hardly can.
    pub fn is_closed(&self) -> bool {
        self.lines.iter().any(|line| line.sender.is_closed())
    }

    /// That of this thread, or of any where this one has none.
    fn line(&self) -> &Line {
        let here = Handle::current().id();
        self.lines.iter().find(|line| line.runtime == here).unwrap_or(&self.lines[0])
    }

    /// Connects from each of these runtimes, of which there is at least one. What is given back beside ends with its connection.
    async fn open(
        address: SocketAddr,
        from: &[Handle],
        silence: Duration,
    ) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        // If one fails, the others are dropped, and so closed.
        let mut opening = JoinSet::new();
        for runtime in from {
            opening.spawn_on(Line::open(address, silence), runtime);
        }
        let (mut lines, mut drivers) = (Vec::new(), Vec::new());
        while let Some(opened) = opening.join_next().await {
            let (line, driver) = opened.map_err(OpenError::Gone)??;
            lines.push(line);
            drivers.push(driver);
        }
        Ok((Self { lines: lines.into(), room: Arc::new(Semaphore::new(STREAMS as usize)) }, drivers))
    }
}

impl Line {
    /// Connects from the runtime that this is called on.
    async fn open(address: SocketAddr, silence: Duration) -> Result<(Self, JoinHandle<()>), OpenError> {
        let stream = TcpStream::connect(address).await.map_err(OpenError::Connect)?;
        // Without it, it is only slower.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(silence)
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
        let line = Self { runtime: Handle::current().id(), sender };
        line.greet(address).await.map_err(OpenError::Speak)?;
        Ok((line, driver))
    }

    /// A process that was stopped still accepts connections: only an answer shows that it is there.
    async fn greet(&self, address: SocketAddr) -> Result<(), hyper::Error> {
        let request = Request::builder().method(Method::HEAD).uri(format!("http://{address}/"));
        let request = request.body(Full::default()).expect("an address makes a URL");
        self.sender.clone().send_request(request).await.map(drop)
    }
}

/// Keeps connections from each of these runtimes open until `ended`, and tells whenever they open, one closes or does not come
/// about.
pub async fn keep(
    address: SocketAddr,
    from: Vec<Handle>,
    patience: Patience,
    ended: CancellationToken,
    tell: impl Fn(Option<Link>),
) {
    let keep = async {
        loop {
            let opened = timeout(patience.opening, Link::open(address, &from, patience.silence)).await;
            match opened.unwrap_or(Err(OpenError::TimedOut)) {
                Ok((link, drivers)) => {
                    tell(Some(link));
                    // None panics, and if one did, its connection would be gone too.
                    let _ = select_all(drivers).await;
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, num::NonZeroUsize};

    use http_body_util::BodyExt;
    use hyper::{server, service::service_fn};
    use kembed_runtime::crew::Crew;
    use tokio::net::TcpListener;

    use super::*;

    /// However busy the machine is.
    const FOREVER: Duration = Duration::from_secs(3600);

    /// A gateway that answers with the port that a request's connection comes from.
    async fn gateway() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.expect("there are files");
                let answer = service_fn(move |_| async move {
                    let port = Bytes::from(from.port().to_string());
                    Ok::<_, Infallible>(Response::new(Full::new(port)))
                });
                let http = server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
            }
        });
        address
    }

    /// The port that a request over this link comes from.
    async fn port(link: Link) -> Bytes {
        let request = Request::get("http://gateway/").body(Full::default()).expect("a request");
        let answer = link.send(request).await.expect("an answer");
        answer.into_body().collect().await.expect("all of it").to_bytes()
    }

    #[tokio::test]
    async fn each_thread_has_a_connection_of_its_own() {
        let address = gateway().await;
        let crew = Crew::of(NonZeroUsize::new(2).expect("more than none")).expect("threads");
        let threads: Vec<_> = crew.runtimes().cloned().collect();
        let (link, _drivers) = Link::open(address, &threads, FOREVER).await.expect("it listens");
        let mut ports = Vec::new();
        for thread in [&threads[0], &threads[1], &threads[0]] {
            ports.push(thread.spawn(port(link.clone())).await.expect("a thread"));
        }
        assert_eq!(ports[0], ports[2]);
        assert_ne!(ports[0], ports[1]);
        assert!(ports.contains(&port(link).await), "any will do for a thread that has none");
    }

    #[tokio::test]
    async fn it_is_closed_when_one_of_them_is() {
        let address = gateway().await;
        let threads = vec![Handle::current(), Handle::current()];
        let (link, drivers) = Link::open(address, &threads, FOREVER).await.expect("it listens");
        assert!(!link.is_closed());
        drivers[1].abort();
        let _ = select_all(drivers).await;
        assert!(link.is_closed());
    }
}
