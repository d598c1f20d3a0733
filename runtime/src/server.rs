//! Serves HTTP within bounds, and ends without losing a request.

use std::{convert::Infallible, error::Error, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Incoming},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{crew::Crew, pulse::Pulse, seldom::Seldom};

/// Bytes that the head of a request may have; a larger one is answered with 431.
const HEAD: usize = 64 * 1024;

/// Requests at the same time over one HTTP/2 connection; further ones are refused.
const STREAMS: u32 = 256;

/// Requests of one HTTP/2 connection that were taken back before they were looked at. A client that takes back more at
/// once does nothing else (CVE-2023-44487), and its connection is closed.
const TAKEN_BACK: usize = 20;

/// How often an HTTP/2 connection is asked whether its other end is still there.
const PING: Duration = Duration::from_secs(60);

/// How long the client of an idle connection has to take its leave once it was asked to.
const FAREWELL: Duration = Duration::from_secs(5);

/// Pause after a failure to accept, which comes from a lack of file descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Connections up to which each has its time and is kept.
    pub comfortable: usize,
    /// Connections that there ever are; further ones wait to be accepted. Between the two each has little time and is
    /// good for one request, so that a crowd of slow or idle clients does not keep health checks out.
    pub most: usize,
    /// How long a connection may be silent before its first byte.
    pub first_byte: Duration,
    /// How long the head of a request may take, and how long a connection may lie idle.
    pub idle: Duration,
    /// Either of the two in a crowd.
    pub crowded: Duration,
    /// How long a client may read nothing of its answer.
    pub unread: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            comfortable: 2048,
            most: 4096,
            first_byte: Duration::from_secs(10),
            // Go's clients let go of an idle connection after 90 s, nginx after 60 s: theirs should be the side that
            // closes, for a client that sends just when its connection is closed loses its request.
            idle: Duration::from_secs(100),
            crowded: Duration::from_secs(2),
            unread: Duration::from_secs(30),
        }
    }
}

/// Answers HTTP/1.1 and, for clients that know, HTTP/2, until `closing` is cancelled and all requests in hand are
/// answered.
pub async fn serve<S, B>(listener: TcpListener, service: S, patience: Patience, closing: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    serve_by(None, listener, service, patience, closing).await;
}

/// As [`serve`], with each connection on one thread of a crew, if there is one.
pub async fn serve_by<S, B>(
    crew: Option<&Crew>,
    listener: TcpListener,
    service: S,
    patience: Patience,
    closing: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(patience.most));
    loop {
        let accepted = tokio::select! {
            // What waits to be accepted comes before the end.
            biased;
            accepted = accept(&listener, &places) => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let crowd = patience.most - places.available_permits() > patience.comfortable;
                let (service, closing) = (service.clone(), closing.clone());
                let serve =
                    move |stream| Connection { stream, place, crowd, patience }.serve(service, closing);
                match crew {
                    Some(crew) => {
                        let token = connections.token();
                        crew.serve(stream, move |stream| async move {
                            serve(stream).await;
                            drop(token);
                        });
                    }
                    None => drop(connections.spawn(serve(stream))),
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "failed to accept a connection");
                sleep(BREATH).await;
            }
        }
    }
    drop(listener);
    tracing::info!(open = connections.len(), "finishing what is in hand");
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Why a connection is asked to end.
enum End {
    Closing,
    Idle,
}

struct Connection {
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    crowd: bool,
    patience: Patience,
}

impl Connection {
    /// Serves one connection to its end.
    async fn serve<S, B>(self, service: S, closing: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send,
        B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let (http, idle) = (self.http(), self.idle());
        let Self { stream, place: _place, crowd, patience } = self;
        // A small answer must not wait for the client's acknowledgement. Without it, it is only slower.
        let _ = stream.set_nodelay(true);
        // Without it, a client that does not read its answer holds it in memory for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(patience.unread));
        let first_byte = if crowd { patience.crowded } else { patience.first_byte };
        if !speaks(&stream, first_byte, &closing).await {
            return;
        }
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let counting = pulse.clone();
        let service = service_fn(move |request| {
            // In a box: else each connection would have room for it all the time, twice.
            let (beat, answering) = (counting.begin(), Box::pin(service.call(request)));
            async move {
                let answer: Response<B> = answering.await?;
                // The request is over when its answer's body is dropped.
                Ok::<_, Infallible>(answer.map(|body| {
                    body.map_err(move |error| {
                        let _over = &beat;
                        error
                    })
                }))
            }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).into_owned());
        let end = pin!(async {
            tokio::select! {
                () = closing.cancelled() => End::Closing,
                () = pulse.idle(idle) => End::Idle,
            }
        });
        let served = tokio::select! {
            // Most of the time it is the connection that was woken.
            biased;
            served = &mut connection => served,
            end = Seldom::new(end) => {
                connection.as_mut().graceful_shutdown();
                match end {
                    End::Closing => connection.await,
                    // A client that is there takes its leave at once, and what came meanwhile is still answered.
                    End::Idle => tokio::select! {
                        served = &mut connection => served,
                        () = pulse.idle(idle.min(FAREWELL)) => return,
                    },
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(error = &*error, "a connection broke off");
        }
    }

    /// How long it may lie idle.
    fn idle(&self) -> Duration {
        if self.crowd { self.patience.crowded } else { self.patience.idle }
    }

    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // Without hyper's limit on how long a head may take, which sets a timer for each request: such a connection is idle.
        http.http1().header_read_timeout(None).max_buf_size(HEAD).keep_alive(!self.crowd);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(HEAD).expect("64 KiB"))
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(TAKEN_BACK)
            .keep_alive_interval(PING);
        http
    }
}

/// Waits for the first byte of a connection: hyper waits for it without a limit, to see which HTTP it is.
async fn speaks(stream: &TcpStream, limit: Duration, closing: &CancellationToken) -> bool {
    let mut byte = [0];
    tokio::select! {
        biased;
        // Not `readable`, which may be told though nothing came.
        peeked = stream.peek(&mut byte) => peeked.is_ok_and(|bytes| bytes > 0),
        () = closing.cancelled() => false,
        () = sleep(limit) => false,
    }
}
