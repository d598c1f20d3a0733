//! The port on which the rest of kembed speaks to this gateway: the leader follows its load here. What does not begin with
//! `/internal/` is given to a handler, and is neither looked at nor authenticated here.
//!
//! Whoever asks for the load shows a token. The first token on a connection is reviewed and decides for the whole
//! connection; see [`Reviews`] for when the API server is away.

use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use kembed_queue::report::LOAD_PATH;
use kembed_runtime::crew::Crew;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    body::BodyError,
    keys::KeyHash,
    knowledge::Knowledge,
    link::{OFFERED, STREAMS},
    load::Board,
    reviews::{Denied, Reviews, bearer},
};

/// Between two lines when nothing is urgent.
const PERIOD: Duration = Duration::from_secs(1);

/// Between two lines at least, so that a thousand services that are wanted at once do not make a thousand lines.
const GAP: Duration = Duration::from_millis(5);

/// How long a connection may be silent at its beginning, and how long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an HTTP/2 connection is asked whether its other end is still there.
const PING: Duration = Duration::from_secs(60);

/// Connections at the same time: a few of the leader's, and one of each thread of each other gateway, or two while it
/// connects anew.
const CONNECTIONS: usize = 4096;

/// Pause after a failure to accept, which comes from a lack of file descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// What is answered on this port.
pub type Answer = Response<UnsyncBoxBody<Bytes, BodyError>>;

/// What answers under `/internal/`.
pub struct Internal {
    board: Arc<Board>,
    knowledge: Arc<Knowledge>,
    reviews: Reviews,
}

/// What is known of one connection: the first token that came over it, and whether it is good.
type Admission = Mutex<Option<(KeyHash, Result<(), Denied>)>>;

impl Internal {
    /// Tells those whom `reviews` lets through what is on the board.
    pub fn new(board: Arc<Board>, knowledge: Arc<Knowledge>, reviews: Reviews) -> Self {
        Self { board, knowledge, reviews }
    }

    async fn answer(&self, request: &Request<Incoming>, admission: &Admission) -> Answer {
        if request.uri().path() != LOAD_PATH {
            return plain(StatusCode::NOT_FOUND, "there is no such path");
        }
        if *request.method() != Method::GET {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        match self.admit(bearer(request.headers()), admission).await {
            Ok(()) => self.load(),
            Err(denied) => refuse(denied),
        }
    }

    async fn admit(&self, token: Option<&str>, admission: &Admission) -> Result<(), Denied> {
        let token = token.ok_or(Denied::Unauthenticated)?;
        let hash = KeyHash::of(token.as_bytes());
        let mut admission = admission.lock().await;
        match &*admission {
            Some((known, verdict)) if *known == hash => *verdict,
            // Somebody who tries one token after the other must at least connect each time.
            Some(_) => Err(Denied::Unauthenticated),
            None => {
                let verdict = self.reviews.admit(token).await;
                *admission = Some((hash, verdict));
                verdict
            }
        }
    }

    fn load(&self) -> Answer {
        let lines = Lines {
            wake: self.board.wakes(),
            board: self.board.clone(),
            knowledge: self.knowledge.clone(),
            last: None,
            version: 0,
        };
        let frames = stream::unfold(lines, |mut lines| async {
            let line = lines.next().await;
            Some((Ok::<_, BodyError>(Frame::data(line)), lines))
        });
        let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        answer
    }
}

/// The lines of one stream.
struct Lines {
    board: Arc<Board>,
    knowledge: Arc<Knowledge>,
    wake: watch::Receiver<()>,
    last: Option<Instant>,
    version: u64,
}

impl Lines {
    /// The first at once, the next after a second, or as soon as somebody begins to want a service.
    async fn next(&mut self) -> Bytes {
        if let Some(last) = self.last {
            sleep_until(last + GAP).await;
            tokio::select! {
                // An error would mean that the board is gone, which `self` holds.
                _ = self.wake.changed() => (),
                () = sleep_until(last + PERIOD) => (),
            }
        }
        // Before the report is made: who begins to want after this is told of by the next.
        self.wake.mark_unchanged();
        let is_asleep = |name: &str| self.knowledge.read(|directory| directory.is_asleep(name));
        let (report, version) = self.board.report(self.version, is_asleep);
        (self.version, self.last) = (version, Some(Instant::now()));
        Bytes::from(report.to_line())
    }
}

/// Serves, by a crew if there is one, until it is dropped. `others` answers what does not begin with `/internal/`.
pub async fn serve<H, F>(crew: Option<Crew>, listener: TcpListener, internal: Arc<Internal>, others: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let (internal, others) = (internal.clone(), others.clone());
                let serve = move |stream| async move {
                    converse(stream, internal, others).await;
                    drop(slot);
                };
                match &crew {
                    Some(crew) => crew.serve(stream, serve),
                    None => drop(tokio::spawn(serve(stream))),
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "failed to accept an internal connection");
                sleep(BREATH).await;
            }
        }
    }
}

/// The handler for a gateway to which no other forwards.
pub async fn nothing_else(_: Request<Incoming>) -> Answer {
    plain(StatusCode::NOT_FOUND, "there is no such path")
}

/// Serves one connection to its end: HTTP/1.1, or HTTP/2 without further ado.
async fn converse<H, F>(stream: TcpStream, internal: Arc<Internal>, others: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // A line must not wait for the acknowledgement of the one before. Without it, it is only slower.
    let _ = stream.set_nodelay(true);
    // hyper waits for the first byte without a limit.
    if !matches!(timeout(HEAD_TIMEOUT, stream.peek(&mut [0])).await, Ok(Ok(1..))) {
        return;
    }
    let admission = Arc::new(Admission::default());
    let service = service_fn(move |request: Request<Incoming>| {
        let (internal, admission, others) = (internal.clone(), admission.clone(), others.clone());
        async move {
            let answer = if request.uri().path().starts_with("/internal/") {
                internal.answer(&request, &admission).await
            } else {
                others(request).await
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // All that another gateway forwards may come over one connection, and a thousand of its clients may leave at once. As
    // many may wait with a body of which only the beginning was read, and hold up none.
    http.http2()
        .initial_stream_window_size(OFFERED)
        .initial_connection_window_size(OFFERED * (STREAMS + 64))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .keep_alive_interval(PING);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = &*error, "an internal connection broke off");
    }
}

fn refuse(denied: Denied) -> Answer {
    let status = match denied {
        Denied::Unauthenticated => StatusCode::UNAUTHORIZED,
        Denied::Forbidden => StatusCode::FORBIDDEN,
        Denied::Unanswered => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut answer = plain(status, denied.to_string());
    if denied == Denied::Unauthenticated {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let body = Full::new(text.into()).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer
}
