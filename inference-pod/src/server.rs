//! Accepts connections within bounds, and ends without losing a request.

use std::{error::Error, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Bytes that the head of a request may have; a larger one is answered with 431.
const HEAD: usize = 64 * 1024;

/// Requests at the same time over one HTTP/2 connection.
const STREAMS: u32 = 256;

/// How often an HTTP/2 connection is asked whether its other end is still there.
const PING: Duration = Duration::from_secs(60);

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

/// Serves until `closing` is cancelled and all requests in hand are answered.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, closing: CancellationToken) {
    let connections = GracefulShutdown::new();
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
                let connection = Connection { stream, place, crowd, patience };
                tokio::spawn(connection.serve(router.clone(), connections.watcher(), closing.clone()));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "failed to accept a connection");
                sleep(BREATH).await;
            }
        }
    }
    drop(listener);
    tracing::info!(open = connections.count(), "finishing what is in hand");
    connections.shutdown().await;
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

struct Connection {
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    crowd: bool,
    patience: Patience,
}

impl Connection {
    /// Serves one connection to its end.
    async fn serve(self, router: Router, watcher: Watcher, closing: CancellationToken) {
        let http = self.http();
        let Self { stream, place: _place, crowd, patience } = self;
        // A small answer must not wait for the client's acknowledgement. Without it, it is only slower.
        let _ = stream.set_nodelay(true);
        // Without it, a client that does not read its answer holds it in memory for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(patience.unread));
        let first_byte = if crowd { patience.crowded } else { patience.first_byte };
        if !speaks(&stream, first_byte, &closing).await {
            return;
        }
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(error = &*error, "a connection broke off");
        }
    }

    /// HTTP/1.1 and, for clients that know, HTTP/2.
    fn http(&self) -> auto::Builder<TokioExecutor> {
        let idle = if self.crowd { self.patience.crowded } else { self.patience.idle };
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            .max_buf_size(HEAD)
            .keep_alive(!self.crowd);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(HEAD).expect("64 KiB"))
            .max_concurrent_streams(STREAMS)
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
