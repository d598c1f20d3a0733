//! Accepts connections, and ends without losing a request.

use std::{convert::Infallible, error::Error, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::answer::Gateway;

/// How long a connection may be silent before its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// How long the head of a request may take, and how long a connection may lie idle. Go's clients let go of an idle
/// connection after 90 s, nginx after 60 s: theirs should be the side that closes, for a client that sends just when
/// its connection is closed loses its request.
const IDLE: Duration = Duration::from_secs(100);

/// Bytes that the head of a request may have; a larger one is answered with 431.
const HEAD: usize = 64 * 1024;

/// Requests at the same time over one HTTP/2 connection.
const STREAMS: u32 = 256;

/// Pause after a failure to accept, which comes from a lack of file descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// How the server ends.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long connections are still accepted, while the word that this gateway ends goes round the cluster.
    pub delay: Duration,
    /// How long requests in hand may take after that.
    pub timeout: Duration,
}

/// Serves until `shutdown` is cancelled and all requests in hand are answered, or their time is over.
pub async fn serve(listener: TcpListener, gateway: Arc<Gateway>, drain: Drain, shutdown: CancellationToken) {
    let http = http();
    let (connections, closing) = (GracefulShutdown::new(), CancellationToken::new());
    let mut stop = pin!(async {
        shutdown.cancelled().await;
        sleep(drain.delay).await;
    });
    loop {
        let accepted = tokio::select! {
            // What waits to be accepted comes before the end.
            biased;
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (watcher, closing) = (connections.watcher(), closing.clone());
                tokio::spawn(converse(stream, http.clone(), gateway.clone(), watcher, closing));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "failed to accept a connection");
                sleep(BREATH).await;
            }
        }
    }
    drop(listener);
    closing.cancel();
    let open = connections.count();
    tracing::info!(open, "finishing what is in hand");
    if timeout(drain.timeout, connections.shutdown()).await.is_err() {
        tracing::warn!(timeout = ?drain.timeout, "ended with requests in hand");
    }
}

/// HTTP/1.1 and, for clients that know, HTTP/2.
fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEAD).expect("64 KiB"))
        .max_concurrent_streams(STREAMS);
    http
}

/// Serves one connection to its end.
async fn converse(
    stream: TcpStream,
    http: auto::Builder<TokioExecutor>,
    gateway: Arc<Gateway>,
    watcher: Watcher,
    closing: CancellationToken,
) {
    // A small answer must not wait for the client's acknowledgement. Without it, it is only slower.
    let _ = stream.set_nodelay(true);
    if !speaks(&stream, &closing).await {
        return;
    }
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.answer(request).await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = &*error, "a connection broke off");
    }
}

/// Waits for the first byte of a connection: hyper waits for it without a limit, to see which HTTP it is.
async fn speaks(stream: &TcpStream, closing: &CancellationToken) -> bool {
    let mut byte = [0];
    tokio::select! {
        biased;
        // Not `readable`, which may be told though nothing came.
        peeked = stream.peek(&mut byte) => peeked.is_ok_and(|bytes| bytes > 0),
        () = closing.cancelled() => false,
        () = sleep(FIRST_BYTE) => false,
    }
}
