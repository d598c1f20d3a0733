//! Reads the reports of one gateway, one connection after the other.

use std::{error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Request, StatusCode,
    header::{AUTHORIZATION, InvalidHeaderValue},
};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kembed_queue::{
    fleet::FRESH,
    report::{LINE_LIMIT, LOAD_PATH, Report},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{gateways::Gateway, metrics::Metrics, streams::News};

/// The longest that a gateway may take to accept a connection, and then to answer: it may have to ask the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses between two attempts: doubled each time that nothing was heard.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("failed to read the token {path:?}")]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the token cannot stand in a header")]
    Unprintable(#[source] InvalidHeaderValue),
    #[error("failed to connect")]
    Connect(#[source] legacy::Error),
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Unanswered,
    #[error("the gateway answered {0}")]
    Status(StatusCode),
    #[error("the gateway was silent for {FRESH:?}")]
    Silent,
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("a line is longer than {LINE_LIMIT} bytes")]
    TooLong,
    #[error("a line is no report")]
    Malformed(#[source] serde_json::Error),
    #[error("the gateway ended the stream")]
    Ended,
}

/// Opens streams.
#[derive(Clone, Debug)]
pub struct Dialer {
    http: Client<HttpConnector, Empty<Bytes>>,
    token: Arc<PathBuf>,
}

impl Dialer {
    /// `token` is a file with a token for the gateways, which the kubelet renews.
    pub fn new(token: PathBuf) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // A stream ends with its connection.
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { http, token: Arc::new(token) }
    }

    async fn open(&self, gateway: &Gateway) -> Result<Incoming, StreamError> {
        let token = tokio::fs::read_to_string(&*self.token).await;
        let token = token.map_err(|source| StreamError::Token { path: self.token.to_path_buf(), source })?;
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(StreamError::Unprintable)?;
        bearer.set_sensitive(true);
        let request = Request::get(format!("http://{}{LOAD_PATH}", gateway.address))
            .header(AUTHORIZATION, bearer)
            .body(Empty::new())
            .expect("an address and a path are a URL");
        let answer = timeout(ANSWER_TIMEOUT, self.http.request(request)).await;
        let answer = answer.map_err(|_| StreamError::Unanswered)?.map_err(StreamError::Connect)?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            other => Err(StreamError::Status(other)),
        }
    }
}

/// Follows one gateway and gives back its uid when it should not be followed any more: at once when `stays` is closed, and
/// when its stream ends while `stays` says false.
pub async fn keep(
    gateway: Gateway,
    dialer: Dialer,
    news: mpsc::Sender<News>,
    metrics: Metrics,
    mut stays: watch::Receiver<bool>,
) -> String {
    let mut reader = Reader { gateway: &gateway, news, metrics, heard: false };
    let mut pause = PAUSE;
    loop {
        let ended = tokio::select! {
            ended = reader.read(&dialer) => ended,
            () = closed(stays.clone()) => break,
        };
        if !*stays.borrow() {
            tracing::info!(gateway = gateway.name, "a gateway has ended");
            break;
        }
        reader.metrics.stream_failed();
        tracing::warn!(gateway = gateway.name, error = &ended as &dyn Error, "lost a gateway's load");
        pause = if std::mem::take(&mut reader.heard) { PAUSE } else { LONGEST_PAUSE.min(2 * pause) };
        tokio::select! {
            () = sleep(pause) => (),
            changed = stays.changed() => if changed.is_err() { break },
        }
    }
    gateway.uid
}

async fn closed(mut stays: watch::Receiver<bool>) {
    while stays.changed().await.is_ok() {}
}

struct Reader<'a> {
    gateway: &'a Gateway,
    news: mpsc::Sender<News>,
    metrics: Metrics,
    heard: bool,
}

impl Reader<'_> {
    /// Reads one stream to its end.
    async fn read(&mut self, dialer: &Dialer) -> StreamError {
        match dialer.open(self.gateway).await {
            Ok(body) => self.lines(body).await.err().unwrap_or(StreamError::Ended),
            Err(error) => error,
        }
    }

    async fn lines(&mut self, mut body: Incoming) -> Result<(), StreamError> {
        let mut rest = BytesMut::new();
        while let Some(frame) = timeout(FRESH, body.frame()).await.map_err(|_| StreamError::Silent)? {
            let Ok(data) = frame.map_err(StreamError::Broken)?.into_data() else { continue };
            let mut searched = rest.len();
            rest.extend_from_slice(&data);
            while let Some(end) = rest[searched..].iter().position(|&byte| byte == b'\n') {
                let line = rest.split_to(searched + end + 1);
                searched = 0;
                self.learn(serde_json::from_slice(&line).map_err(StreamError::Malformed)?).await;
            }
            if rest.len() > LINE_LIMIT {
                return Err(StreamError::TooLong);
            }
        }
        Ok(())
    }

    async fn learn(&mut self, report: Report) {
        self.heard = true;
        self.metrics.reported();
        // It fails only when nobody listens any more, and then this task is about to end too.
        let _ = self.news.send(News::Report { gateway: self.gateway.uid.clone(), report }).await;
    }
}
