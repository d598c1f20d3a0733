//! Sends requests to pods: to one, or to the first that takes it.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri, Version,
    header::HOST,
    request,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    availability::Endpoint,
    body::{BodyState, Lender, Lent, RequestBody},
    headers::strip_hop_by_hop,
    metrics::Metrics,
};

/// A pod in the same cluster answers within a millisecond, or its node is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may be silent while an answer is waited for before its other end is asked, by TCP itself,
/// whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How often that is asked, and how many times, before the connection counts as broken: so a node that dies is noticed
/// within six seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_RETRIES: u32 = 4;

/// Much shorter than pods keep an idle connection, so that none is used just when its pod closes it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections kept to one pod.
const IDLE_CONNECTIONS: usize = 64;

/// Why no pod answered.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Each pod was tried, and nothing was sent to any.
    #[error("failed to connect to any of {tried} pods")]
    Unreachable {
        /// Pods that were tried.
        tried: usize,
        /// Why the last one could not be reached.
        #[source]
        last: Option<legacy::Error>,
    },
    /// Something was sent, and the pod has no answer to it.
    #[error("failed to get an answer from pod {pod:?}")]
    Failed {
        /// The pod.
        pod: String,
        /// What happened.
        #[source]
        source: legacy::Error,
    },
    /// The client's body broke off.
    #[error("failed to read the client's body")]
    Body(#[source] legacy::Error),
}

/// Sends requests to pods over connections that it keeps.
#[derive(Clone)]
pub struct Upstream {
    client: Client<HttpConnector, Either<Lent, Full<Bytes>>>,
    metrics: Metrics,
}

impl Upstream {
    /// Has no connection yet.
    pub fn new(metrics: Metrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(KEEP_ALIVE));
        connector.set_keepalive_interval(Some(KEEP_ALIVE_INTERVAL));
        connector.set_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(KEEP_ALIVE + KEEP_ALIVE_INTERVAL * KEEP_ALIVE_RETRIES));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { client, metrics }
    }

    /// Sends a request to a pod, and gives back the pod's answer, of which the body may still be coming.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn give(
        &self,
        pod: &Endpoint,
        head: request::Parts,
        target: &PathAndQuery,
        body: Bytes,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut request = Request::from_parts(prepared(head), Either::Right(Full::new(body)));
        *request.uri_mut() = url(pod, target);
        let sent = Instant::now();
        let answered = self.client.request(request).await;
        match &answered {
            Ok(_) => self.metrics.answered(sent.elapsed()),
            Err(error) if nothing_was_sent(error) => self.metrics.connect_failed(),
            Err(_) => (),
        }
        let mut response = answered?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// Sends a request to the first of `pods` that takes it, and gives back the pod's answer, of which the body may
    /// still be coming. The next pod is tried only while nothing was sent.
    ///
    /// # Errors
    /// If no pod takes it, or the one that did gives no answer.
    pub async fn send<'a>(
        &self,
        pods: impl Iterator<Item = &'a Endpoint>,
        head: request::Parts,
        target: &PathAndQuery,
        body: RequestBody,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let head = prepared(head);
        let body = Lender::new(body);
        let (mut tried, mut last) = (0, None);
        for pod in pods {
            let mut attempt = Request::from_parts(head.clone(), Either::Left(body.lend()));
            *attempt.uri_mut() = url(pod, target);
            let sent = Instant::now();
            match self.client.request(attempt).await {
                Ok(mut response) => {
                    self.metrics.answered(sent.elapsed());
                    strip_hop_by_hop(response.headers_mut());
                    return Ok(response);
                }
                Err(error) if body.state() == BodyState::Unread && nothing_was_sent(&error) => {
                    tracing::debug!(pod = pod.pod, error = &error as &dyn Error, "failed to reach a pod");
                    self.metrics.connect_failed();
                    (tried, last) = (tried + 1, Some(error));
                }
                Err(error) if body.state() == BodyState::Broken => return Err(UpstreamError::Body(error)),
                Err(source) => return Err(UpstreamError::Failed { pod: pod.pod.clone(), source }),
            }
        }
        Err(UpstreamError::Unreachable { tried, last })
    }
}

/// The head as pods get it: without what belongs to the client's connection, with the host that the client asked for.
fn prepared(mut head: request::Parts) -> request::Parts {
    strip_hop_by_hop(&mut head.headers);
    let host = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = host {
        head.headers.insert(HOST, host);
    }
    head.version = Version::HTTP_11;
    head
}

fn url(pod: &Endpoint, target: &PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(pod.authority.clone());
    parts.path_and_query = Some(target.clone());
    Uri::from_parts(parts).expect("scheme, authority and path are a URL")
}

/// Whether the pod cannot have seen any of the request: no connection came about, or the one that was kept from
/// earlier closed before the request was written.
pub fn nothing_was_sent(error: &legacy::Error) -> bool {
    let cancelled = |source: &(dyn Error + 'static)| {
        source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    };
    error.is_connect() || error.source().is_some_and(cancelled)
}
