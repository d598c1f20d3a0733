//! Sends requests to pods: to one, or to the first that takes it.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::HOST, request, uri::PathAndQuery};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::{
    availability::Endpoint,
    body::{BodyState, Lender, Lent, RequestBody},
    connections::{Carried, Connections, SendError},
    headers::strip_hop_by_hop,
    metrics::Metrics,
};

/// What pods are sent.
type Sent = Either<Lent, Full<Bytes>>;

/// What comes of a pod or, forwarded, of another gateway.
pub type PodBody = Either<Carried<Sent>, Incoming>;

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
        last: Option<SendError>,
    },
    /// Something was sent, and the pod has no answer to it.
    #[error("failed to get an answer from pod {pod:?}")]
    Failed {
        /// The pod.
        pod: String,
        /// What happened.
        #[source]
        source: SendError,
    },
    /// The client's body broke off.
    #[error("failed to read the client's body")]
    Body(#[source] SendError),
}

/// Sends requests to pods over connections that it keeps.
#[derive(Clone)]
pub struct Upstream {
    connections: Connections<Sent>,
    metrics: Metrics,
}

impl Upstream {
    /// Has no connection yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { connections: Connections::default(), metrics }
    }

    /// Sends a request to a pod, and gives back the pod's answer, of which the body may still be coming, and how long it took
    /// to begin.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn give(
        &self,
        pod: &Endpoint,
        head: request::Parts,
        target: &PathAndQuery,
        body: Bytes,
    ) -> Result<(Response<PodBody>, Duration), SendError> {
        let request = Request::from_parts(prepared(head, pod, target), Either::Right(Full::new(body)));
        let sent = Instant::now();
        let answered = self.connections.send(pod.address, request).await;
        if answered.as_ref().is_err_and(SendError::nothing_was_sent) {
            self.metrics.connect_failed();
        }
        let (mut response, took) = (answered?.map(Either::Left), sent.elapsed());
        self.metrics.answered(took);
        strip_hop_by_hop(response.headers_mut());
        Ok((response, took))
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
    ) -> Result<Response<PodBody>, UpstreamError> {
        let body = Lender::new(body);
        let (mut tried, mut last) = (0, None);
        for pod in pods {
            let attempt = Request::from_parts(prepared(head.clone(), pod, target), Either::Left(body.lend()));
            let sent = Instant::now();
            match self.connections.send(pod.address, attempt).await {
                Ok(response) => {
                    let mut response = response.map(Either::Left);
                    self.metrics.answered(sent.elapsed());
                    strip_hop_by_hop(response.headers_mut());
                    return Ok(response);
                }
                Err(error) if body.state() == BodyState::Unread && error.nothing_was_sent() => {
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

/// The head as a pod gets it: without what belongs to the client's connection, with the host that the client asked for.
fn prepared(mut head: request::Parts, pod: &Endpoint, target: &PathAndQuery) -> request::Parts {
    strip_hop_by_hop(&mut head.headers);
    let host = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = host {
        head.headers.insert(HOST, host);
    } else if !head.headers.contains_key(HOST) {
        // A request of HTTP/1.0 need not have one.
        let host = HeaderValue::from_str(&pod.address.to_string()).expect("an address is of digits and dots");
        head.headers.insert(HOST, host);
    }
    head.uri = target.clone().into();
    head.version = Version::HTTP_11;
    head
}
