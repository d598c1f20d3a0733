//! The way of one request.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE},
    request,
    uri::PathAndQuery,
};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::field;

use super::{
    body::{AnswerBody, Passed, RequestBody},
    knowledge::Knowledge,
    metrics::{Exchange, Metrics},
    model_body::{service_of_body, unknown},
    models,
    name::ServiceName,
    refusal::Refusal,
    route::{By, Route, route},
    upstream::{Upstream, UpstreamError},
};

/// Bounds on a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body that names its model, which is read before it is known where it goes.
    pub model_body: usize,
    /// Time for such a body to come, and for a pod to answer where the service does not say.
    pub request_timeout: Duration,
}

/// Answers requests.
pub struct Gateway {
    knowledge: Arc<Knowledge>,
    upstream: Upstream,
    metrics: Metrics,
    limits: Limits,
    draining: CancellationToken,
}

/// An answer before it is counted.
enum Answer {
    /// The gateway's own.
    Own(Response<Bytes>),
    /// A pod's, which has until then to be complete.
    Pods(Response<Incoming>, Instant),
}

impl Gateway {
    /// Once `draining` is cancelled, each answer asks the client to come over another connection, to another gateway.
    pub fn new(
        knowledge: Arc<Knowledge>,
        metrics: Metrics,
        limits: Limits,
        draining: CancellationToken,
    ) -> Self {
        Self { knowledge, upstream: Upstream::new(metrics.clone()), metrics, limits, draining }
    }

    /// Whether requests should come here: all is known, and the gateway is not about to end.
    pub fn is_ready(&self) -> bool {
        !self.draining.is_cancelled() && self.knowledge.read(|directory| directory.is_complete())
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let mut exchange = self.metrics.begin();
        let (method, version) = (request.method().clone(), request.version());
        let answer = self.dispatch(request, &mut exchange).await.unwrap_or_else(|refusal| {
            self.metrics.refused(refusal.label());
            Answer::Own(refusal.into_response())
        });
        let mut response = counted(answer, method, exchange);
        // HTTP/2 has its own way of saying so, which the server sees to.
        if version < Version::HTTP_2 && self.draining.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn dispatch(&self, request: Request<Incoming>, exchange: &mut Exchange) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let route = self.knowledge.read(|directory| {
            if !directory.is_complete() {
                return Err(Refusal::Starting);
            }
            route(&head.method, &head.uri, &head.headers, |name| directory.view(name).is_some())
        })?;
        match route {
            Route::List => {
                exchange.route = "models";
                Ok(Answer::Own(self.list()))
            }
            Route::Service { name, by, target } => {
                exchange.route = if by == By::Host { "host" } else { "path" };
                exchange.service = Some(name.clone());
                self.forward(name, by, head, target, Either::Right(body)).await
            }
            Route::Model { target } => {
                exchange.route = "model";
                let body = self.whole(body).await?;
                let name = service_of_body(&body)?;
                exchange.service = Some(name.clone());
                self.forward(name, By::Model, head, target, Either::Left(Full::new(body))).await
            }
        }
    }

    fn list(&self) -> Response<Bytes> {
        let list = self
            .knowledge
            .read(|directory| models::list(directory.views().map(|(name, view)| (name, view.created))));
        let mut response = Response::new(list);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// Reads a body that says in its midst where it goes.
    async fn whole(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let Limits { model_body: limit, request_timeout } = self.limits;
        match timeout(request_timeout, Limited::new(body, limit).collect()).await {
            Err(_) => Err(Refusal::SlowBody { limit: request_timeout }),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge { limit }),
            Ok(Err(_)) => Err(Refusal::BrokenBody),
            Ok(Ok(body)) => Ok(body.to_bytes()),
        }
    }

    async fn forward(
        &self,
        name: ServiceName,
        by: By,
        head: request::Parts,
        target: PathAndQuery,
        body: RequestBody,
    ) -> Result<Answer, Refusal> {
        let view = self.knowledge.read(|directory| directory.view(&name).cloned());
        let view = view.ok_or_else(|| match by {
            By::Model => unknown(&name.to_string()),
            By::Host | By::Path => Refusal::UnknownUrl { asked: Some(name.clone()) },
        })?;
        let pods = view.endpoints.as_deref().map_err(|why| Refusal::Unavailable(why.clone()))?;
        let limit = view.request_timeout.unwrap_or(self.limits.request_timeout);
        let deadline = Instant::now() + limit;
        let sent = self.upstream.send(view.rotation.order(pods), head, &target, body);
        match timeout_at(deadline, sent).await {
            Ok(Ok(response)) => Ok(Answer::Pods(response, deadline)),
            Ok(Err(error)) => Err(refusal_of(error, &name)),
            Err(_) => Err(Refusal::TimedOut { limit }),
        }
    }
}

fn refusal_of(error: UpstreamError, service: &ServiceName) -> Refusal {
    let refusal = match &error {
        // The client's doing, and nobody is left to hear of it.
        UpstreamError::Body(_) => return Refusal::BrokenBody,
        UpstreamError::Unreachable { tried, .. } => Refusal::Unreachable { tried: *tried },
        UpstreamError::Failed { .. } => Refusal::PodFailed,
    };
    tracing::warn!(%service, error = &error as &dyn Error, "failed to answer a request");
    refusal
}

/// Logs the answer, and has it counted when its last byte is sent. An input may stand in the URL, which is therefore
/// not logged.
fn counted(answer: Answer, method: Method, mut exchange: Exchange) -> Response<AnswerBody> {
    let status = match &answer {
        Answer::Own(response) => response.status(),
        Answer::Pods(response, _) => response.status(),
    };
    exchange.status = Some(status);
    log(&method, status, &exchange);
    match answer {
        Answer::Own(response) => response.map(|body| Either::Left(Full::new(body))),
        Answer::Pods(response, deadline) => {
            response.map(|body| Either::Right(Passed::new(body, deadline, exchange)))
        }
    }
}

fn log(method: &Method, status: StatusCode, exchange: &Exchange) {
    let (service, elapsed) = (exchange.service.as_ref().map(field::display), exchange.elapsed());
    tracing::debug!(%method, route = exchange.route, service, status = status.as_u16(), ?elapsed, "answered");
}
