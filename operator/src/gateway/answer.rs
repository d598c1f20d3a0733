//! The way of one request.

use std::{
    error::Error,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant as Clock},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE},
    request,
    uri::PathAndQuery,
};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    activation::Activation,
    admission,
    body::{AnswerBody, Passed, RequestBody},
    buffers::Buffers,
    caller::Caller,
    directory::View,
    headers::{has_own, own_memory},
    hop::{self, Hop},
    inference::{Terms, is_inference},
    keys::Charge,
    knowledge::Knowledge,
    leg::Leg,
    load::{Board, Underway},
    metrics::{Exchange, Metrics},
    model_body::{service_of_body, unknown},
    models,
    name::ServiceName,
    names,
    owner::{Asked, Owner, Served, Settings},
    parcel,
    peers::Peers,
    refusal::Refusal,
    route::{By, Route, route},
    service_queue::WaitLimits,
    upstream::{PodBody, Upstream, UpstreamError},
};

/// What is told of a service that is not there.
const NOTHING: Refusal = Refusal::UnknownUrl { asked: None };

/// Bounds on a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body that is read before it is sent on: of each request for vectors, and of what names its model.
    pub body: usize,
    /// Bytes of all such bodies together.
    pub bodies: usize,
    /// Time for such a body to come, and for a pod to answer where the service does not say.
    pub request_timeout: Duration,
    /// For requests that wait for a pod, where the service does not say.
    pub wait: WaitLimits,
}

/// Answers requests.
pub struct Gateway {
    pub(super) knowledge: Arc<Knowledge>,
    upstream: Upstream,
    load: Arc<Board>,
    pub(super) owner: Arc<Owner>,
    pub(super) peers: Arc<Peers>,
    pub(super) metrics: Metrics,
    limits: Limits,
    buffers: Buffers,
    pub(super) draining: CancellationToken,
}

/// A request whose service is found.
pub(super) struct Errand {
    /// Who sent it.
    pub caller: Caller,
    /// Whose it is.
    pub service: ServiceName,
    /// What was known of that when it was found.
    pub view: Arc<View>,
    /// As the client sent it.
    pub head: Arc<request::Parts>,
    /// What to ask a pod for.
    pub target: PathAndQuery,
    /// What the client says beside it.
    pub terms: Terms,
}

impl Errand {
    /// Whether it is for vectors, and so may wait.
    pub fn is_inference(&self) -> bool {
        is_inference(&self.head.method, &self.target)
    }
}

/// An answer before it is counted.
pub(super) enum Answer {
    /// The gateway's own.
    Own(Response<Bytes>),
    /// A pod's, which has until then to be complete, and how it counts in its service's load, if it does.
    Pods(Response<PodBody>, Instant, Option<Underway>),
}

impl Gateway {
    /// Once `draining` is cancelled, each answer asks the client to come over another connection, to another gateway.
    pub fn new(
        knowledge: Arc<Knowledge>,
        peers: Arc<Peers>,
        metrics: Metrics,
        limits: Limits,
        activation: Activation,
        draining: CancellationToken,
    ) -> Self {
        let (upstream, buffers) = (Upstream::new(metrics.clone()), Buffers::new(limits.body, limits.bodies));
        let settings = Settings { wait: limits.wait, request_timeout: limits.request_timeout };
        let load = Arc::new(Board::new(metrics.clone()));
        let owner = Owner::new(
            knowledge.clone(),
            upstream.clone(),
            load.clone(),
            metrics.clone(),
            settings,
            activation,
        );
        let owner = Arc::new(owner);
        Self { knowledge, upstream, load, owner, peers, metrics, limits, buffers, draining }
    }

    /// What is counted of the requests.
    pub fn load(&self) -> &Arc<Board> {
        &self.load
    }

    /// What answers requests for vectors.
    pub fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Whether requests should come here: all is known, and the gateway is not about to end.
    pub fn is_ready(&self) -> bool {
        let is_complete = || self.knowledge.read(|directory| directory.is_complete());
        !self.draining.is_cancelled() && self.peers.is_settled() && is_complete()
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let mut exchange = self.metrics.begin(request.method().clone(), request.headers());
        let (version, span) = (request.version(), exchange.span.clone());
        // Pinned, as else all of it would be moved into what is around it.
        let answer = span.around(pin!(self.dispatch(request, &mut exchange))).await;
        let mut response = self.told(answer, exchange);
        // HTTP/2 has its own way of saying so, which the server sees to.
        if version < Version::HTTP_2 && self.draining.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The answer as it is sent, and counted when its last byte is.
    fn told(&self, answer: Result<Answer, Refusal>, exchange: Exchange) -> Response<AnswerBody> {
        let answer = answer.unwrap_or_else(|refusal| {
            self.metrics.refused(refusal.label());
            Answer::Own(refusal.into_response())
        });
        let mut response = counted(answer, exchange);
        // Between pod and gateway alone.
        response.headers_mut().remove(&names::POD_LOAD);
        if !response.status().is_success() {
            response.headers_mut().remove(&names::NOT_READY);
        }
        response
    }

    /// Answers one request that another gateway forwarded, whoever owns its service. It is never forwarded again.
    pub async fn answer_forwarded(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let (mut head, body) = request.into_parts();
        let terms = Terms::of(&head.headers, Clock::now());
        head.headers.remove(&names::GRANTED);
        let Some(Hop { service, past }) = hop::inward(&mut head) else {
            let mut response = Response::new(Either::Left(Full::default()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let mut exchange = self.metrics.begin(head.method.clone(), &head.headers);
        exchange.route = "forwarded";
        let (terms, span) = (Terms { past, ..terms }, exchange.span.clone());
        let answer = span.around(pin!(self.take(service, head, body, terms, &mut exchange))).await;
        let mut response = self.told(answer, exchange);
        hop::tell_ending(response.headers_mut(), self.draining.is_cancelled());
        response
    }

    async fn take(
        &self,
        service: ServiceName,
        head: request::Parts,
        body: Incoming,
        terms: Terms,
        exchange: &mut Exchange,
    ) -> Result<Answer, Refusal> {
        if self.draining.is_cancelled() && self.peers.successor(&service).is_some() {
            // Without a name: who that is may be about to end too, and they must not send it to and fro.
            return Err(Refusal::Moved { to: None, history: None });
        }
        let found = self.knowledge.read(|directory| {
            let caller = directory.is_complete().then(|| directory.caller(&head.headers))?;
            let view = directory.view_for(&caller, &service)?.clone();
            Some((caller, view))
        });
        // The other gateway knows of a service that this one has not heard of yet.
        let (caller, view) = found.ok_or(Refusal::Moved { to: None, history: None })?;
        exchange.service = Some(service.clone());
        let target = head.uri.path_and_query().cloned().ok_or(NOTHING)?;
        let errand = Errand { caller, service, view, head: Arc::new(head), target, terms };
        match self.here(&errand, Either::Right(body), exchange).await {
            Err(Refusal::Closing) => Err(Refusal::Moved { to: None, history: None }),
            answer => answer,
        }
    }

    async fn dispatch(&self, request: Request<Incoming>, exchange: &mut Exchange) -> Result<Answer, Refusal> {
        let (mut head, body) = request.into_parts();
        let mut terms = Terms::default();
        if has_own(&head.headers) {
            terms = Terms::of(&head.headers, Clock::now());
            // No client keeps count of credit, nor is one a gateway.
            head.headers.remove(&names::GRANTED);
            hop::strip(&mut head.headers);
        }
        let (caller, route) = self.knowledge.read(|directory| {
            if !directory.is_complete() {
                return Err(Refusal::Starting);
            }
            let caller = directory.caller(&head.headers);
            let find = |name: &ServiceName| directory.view_for(&caller, name).cloned();
            let route = route(&head.method, &head.uri, &head.headers, find);
            // Nor is the body of a caller read for whom there is nothing, whatever it says.
            let route = route.and_then(|route| directory.admits(&caller).then_some(route).ok_or(NOTHING));
            Ok((caller, route.map_err(|refusal| caller.told(refusal))?))
        })?;
        let (service, view, mut target, body) = match route {
            Route::List => {
                exchange.route = "models";
                return Ok(Answer::Own(self.list(&caller)));
            }
            Route::Service { name, service, by, target } => {
                exchange.route = if by == By::Host { "host" } else { "path" };
                (name, service, target, Either::Right(body))
            }
            Route::Model { target } => {
                exchange.route = "model";
                let body = self.whole(body, self.limits.request_timeout).await?;
                let name = service_of_body(&body).map_err(|refusal| caller.told(refusal))?;
                let view = self.view_of_model(&caller, &name)?;
                (name, view, target, Either::Left(body))
            }
        };
        exchange.service = Some(service.clone());
        if view.endpoints.is_err() {
            // It may wait for minutes.
            own_memory(&mut head, &mut target);
        }
        let counts = caller.account(&view.keys).is_some();
        let errand = Errand { caller, service, view, head: Arc::new(head), target, terms };
        // What waits or counts does so at the owner.
        if counts || errand.is_inference() {
            self.carry(errand, body, exchange).await
        } else {
            self.here(&errand, body, exchange).await
        }
    }

    /// Answers a request at this gateway. Refuses it as moved if it waits and another gateway comes to own its service.
    ///
    /// What it takes lies in a box: clients that send nothing would have room for it too, and it would be moved there for
    /// each request.
    pub(super) fn here<'a>(
        &'a self,
        errand: &'a Errand,
        body: Either<Bytes, Incoming>,
        exchange: &'a mut Exchange,
    ) -> BoxFuture<'a, Result<Answer, Refusal>> {
        self.answer_here(errand, body, exchange).boxed()
    }

    async fn answer_here(
        &self,
        errand: &Errand,
        body: Either<Bytes, Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Answer, Refusal> {
        let Errand { caller, service, view, target, .. } = errand;
        let (body, charge) = self.admit(view, caller, target, body, exchange).await?;
        let mut head = errand.head.clone();
        if caller.is_holder() {
            caller.strip(&mut Arc::make_mut(&mut head).headers);
        }
        let answer = if errand.is_inference() {
            self.serve(view, service.clone(), head, target.clone(), body, errand.terms.clone()).await
        } else {
            self.pass(view, service, Arc::unwrap_or_clone(head), target, body).await
        };
        if let Some(charge) = charge {
            match &answer {
                Ok(Answer::Pods(response, ..)) => admission::settle(charge, Ok(response)),
                Ok(Answer::Own(response)) => admission::settle(charge, Ok(response)),
                Err(refusal) => admission::settle::<()>(charge, Err(refusal)),
            }
        }
        answer
    }

    fn list(&self, caller: &Caller) -> Response<Bytes> {
        let list = self.knowledge.read(|directory| {
            let views = directory.views().filter(|(_, view)| caller.may_use(&view.keys));
            models::list(views.map(|(name, view)| (name, view.created)))
        });
        let mut response = Response::new(list);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn view_of_model(&self, caller: &Caller, name: &ServiceName) -> Result<Arc<View>, Refusal> {
        let view = self.knowledge.read(|directory| directory.view_for(caller, name).cloned());
        view.ok_or_else(|| caller.told(unknown(name.as_str())))
    }

    /// How long a pod of this service may take, and a client over its body.
    pub(super) fn time(&self, view: &View) -> Duration {
        view.request_timeout.unwrap_or(self.limits.request_timeout)
    }

    /// Charges the caller's key, if the service wants one.
    async fn admit(
        &self,
        view: &View,
        caller: &Caller,
        target: &PathAndQuery,
        body: Either<Bytes, Incoming>,
        exchange: &mut Exchange,
    ) -> Result<(Either<Bytes, Incoming>, Option<Charge>), Refusal> {
        let Some(account) = caller.account(&view.keys) else { return Ok((body, None)) };
        exchange.key = Some(account.name().to_owned());
        // Who does not say how long his body is would be charged for nothing.
        let (body, bytes) = match body {
            Either::Left(body) => (Either::Left(body.clone()), body.len() as u64),
            Either::Right(body) => match body.size_hint().exact() {
                Some(bytes) => (Either::Right(body), bytes),
                None => {
                    let body = self.whole(body, self.time(view)).await?;
                    (Either::Left(body.clone()), body.len() as u64)
                }
            },
        };
        let tokens = admission::estimate(bytes, target);
        let charge = account.admit(tokens, Clock::now()).map_err(Refusal::RateLimited)?;
        Ok((body, Some(charge)))
    }

    /// Reads a body that is sent on only when all of it is there.
    pub(super) async fn whole(&self, body: Incoming, limit: Duration) -> Result<Bytes, Refusal> {
        parcel::read(body, &self.buffers, limit).await
    }

    /// Has a request for vectors answered, which may wait for a pod.
    async fn serve(
        &self,
        view: &View,
        service: ServiceName,
        head: Arc<request::Parts>,
        target: PathAndQuery,
        body: Either<Bytes, Incoming>,
        terms: Terms,
    ) -> Result<Answer, Refusal> {
        let (body, offer) = match body {
            Either::Left(body) => (body, None),
            // Those of this gateway's clients are read by now.
            Either::Right(body) => parcel::take_in(body, &self.buffers, self.time(view)).await?,
        };
        let Served { response, deadline, load } =
            self.owner.serve(Asked { service, head, target, body, offer, terms }).await?;
        Ok(Answer::Pods(response, deadline, Some(load)))
    }

    /// Passes anything else straight to a pod, if there is one.
    async fn pass(
        &self,
        view: &View,
        name: &ServiceName,
        mut head: request::Parts,
        target: &PathAndQuery,
        body: Either<Bytes, Incoming>,
    ) -> Result<Answer, Refusal> {
        let body: RequestBody = match body {
            Either::Left(body) => Either::Left(Full::new(body)),
            Either::Right(body) => Either::Right(body),
        };
        let pods = view.endpoints.as_deref().map_err(|why| Refusal::Unavailable(why.clone()))?;
        let limit = self.time(view);
        let deadline = Instant::now() + limit;
        let leg = Leg::attempt(None, &mut head.headers);
        let sent = self.upstream.send(view.rotation.order(pods), head, target, body);
        let answer = match timeout_at(deadline, sent).await {
            Ok(Ok(response)) => Ok(Answer::Pods(response, deadline, None)),
            Ok(Err(error)) => Err(refusal_of(error, name)),
            Err(_) => Err(Refusal::TimedOut { limit }),
        };
        leg.ended(answer.as_ref().map_or_else(Refusal::label, |_| "answered"), answer.is_err());
        answer
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

/// Has the answer counted and logged when its last byte is sent.
fn counted(answer: Answer, mut exchange: Exchange) -> Response<AnswerBody> {
    let status = match &answer {
        Answer::Own(response) => response.status(),
        Answer::Pods(response, ..) => response.status(),
    };
    exchange.status = Some(status);
    match answer {
        Answer::Own(response) => response.map(|body| Either::Left(Full::new(body))),
        Answer::Pods(response, deadline, load) => {
            exchange.load = load;
            response.map(|body| Either::Right(Passed::new(body, deadline, exchange)))
        }
    }
}
