//! Takes requests to the gateway that owns their service, and to the next one if that one fails or gives them back.
//!
//! A request is forwarded once at a time and by this gateway alone, which has its body until it is answered: so it can
//! begin again, and there are no loops.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use kembed_queue::History;
use tokio::time::{Instant, sleep};

use super::{
    answer::{Answer, Errand, Gateway},
    directory::View,
    headers::strip_hop_by_hop,
    hop::{self, Hop},
    inference::look_over,
    internal,
    leg::Leg,
    link::{Link, LinkError, OFFERED},
    metrics::Exchange,
    peers::{Journey, Place},
    refusal::Refusal,
};

/// Answers of up to so many bytes are passed on when they are whole, so that a gateway that dies while it sends one costs
/// nobody an answer. They would lie here anyway.
const WHOLE: u64 = 128 * 1024;

/// Time for a longer answer; the owner breaks it off much sooner.
const STREAMED: Duration = Duration::from_secs(60 * 60);

/// How often it is looked for requests that wait at the wrong gateway: news may have come to that one first.
const SWEEP: Duration = Duration::from_millis(500);

/// What a gateway that dies was sent longer ago than this, it had probably told the leader of, and what came later it had
/// not: it does so once a second.
const TOLD_AFTER: Duration = Duration::from_millis(500);

/// How often a gateway that ends looks whether it may.
const GLANCE: Duration = Duration::from_millis(20);

/// How forwarding a request ended.
enum Outcome {
    /// The owner's answer.
    Answered(Box<Answer>),
    /// The owner gave it back, may have said to whom it should go, and what it went through there if it was let in.
    Moved(Option<String>, Option<History>),
    /// There is none.
    Failed(LinkError),
}

/// Answers what other gateways forward, at [`internal`].
pub fn taker(
    gateway: Arc<Gateway>,
) -> impl Fn(Request<Incoming>) -> BoxFuture<'static, internal::Answer> + Clone + Send + Sync {
    move |request| {
        let gateway = gateway.clone();
        async move { gateway.answer_forwarded(request).await.map(BodyExt::boxed_unsync) }.boxed()
    }
}

impl Gateway {
    /// Has a request answered by the owner of its service, which may be this gateway.
    pub(super) async fn carry(
        &self,
        mut errand: Errand,
        body: Either<Bytes, Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Answer, Refusal> {
        let mut journey = Journey::default();
        if !errand.is_inference() && matches!(self.peers.place(&errand.service, &journey), Place::Here) {
            return self.here(&errand, body, exchange).await;
        }
        let body = match body {
            Either::Left(body) => body,
            Either::Right(body) => self.whole(body, self.time(&errand.view)).await?,
        };
        let came = Instant::now();
        loop {
            match self.peers.place(&errand.service, &journey) {
                Place::Here => match self.here(&errand, Either::Left(body.clone()), exchange).await {
                    Err(Refusal::Moved { to, history }) => {
                        journey.moved(None, to);
                        errand.terms.past.learn(history);
                    }
                    answer => return answer,
                },
                Place::There { name, link } => {
                    self.look_over(&errand, &body)?;
                    let sent = Instant::now();
                    match Box::pin(self.forward(&name, &link, &errand, body.clone())).await {
                        Outcome::Answered(answer) => return Ok(*answer),
                        Outcome::Moved(to, history) => {
                            journey.moved(Some(name), to);
                            errand.terms.past.learn(history);
                        }
                        Outcome::Failed(error) => {
                            if sent.elapsed() > TOLD_AFTER {
                                errand.terms.past.history.get_or_insert_default();
                            }
                            tracing::debug!(
                                gateway = name,
                                error = &error as &dyn Error,
                                "chose another gateway"
                            );
                            journey.broke(name);
                        }
                    }
                }
            }
            self.peers.catch_up(&journey).await;
            errand.terms.past.waited = came.elapsed();
        }
    }

    /// The owner of a service that may have to be woken does not see a long body before there is a pod.
    fn look_over(&self, errand: &Errand, body: &Bytes) -> Result<(), Refusal> {
        if body.len() <= OFFERED as usize {
            return Ok(());
        }
        let is_asleep = |view: &Arc<View>| view.endpoints.as_ref().is_err_and(|why| why.transient);
        let is_asleep =
            self.knowledge.read(|directory| directory.view(&errand.service).is_some_and(is_asleep));
        if is_asleep && errand.is_inference() { look_over(&errand.head.method, body) } else { Ok(()) }
    }

    /// Sends those who wait here for services of other gateways there, now and whenever that changes; never ends.
    pub async fn give_way(&self) {
        let (mut news, mut is_ending) = (self.peers.news(), false);
        loop {
            self.owner.give_way(|service| self.peers.successor(service));
            tokio::select! {
                // An error would mean that `self` is gone.
                _ = news.changed() => (),
                () = self.draining.cancelled(), if !is_ending => is_ending = true,
                () = sleep(SWEEP) => (),
            }
        }
    }

    /// Waits until nobody waits for an answer any more.
    pub async fn finish(&self) {
        while self.metrics.in_flight() > 0 {
            sleep(GLANCE).await;
        }
    }

    async fn forward(&self, name: &str, link: &Link, errand: &Errand, body: Bytes) -> Outcome {
        let hop = Hop { service: errand.service.clone(), past: errand.terms.past };
        let left = errand.terms.deadline.map(|at| at.saturating_duration_since(Instant::now().into_std()));
        let mut head = hop::outward(&errand.head, &errand.target, &hop, left);
        let leg = Leg::forward(name, &mut head.headers);
        let outcome = match link.send(Request::from_parts(head, Full::new(body))).await {
            Ok(mut response) => {
                if hop::is_ending(response.headers_mut()) {
                    self.peers.ends(name);
                }
                read(response).await
            }
            Err(error) => Outcome::Failed(error),
        };
        let label = match outcome {
            Outcome::Answered(_) => "answered",
            Outcome::Moved(..) => "moved",
            Outcome::Failed(_) => "failed",
        };
        self.metrics.forwarded(label);
        leg.ended(label, matches!(outcome, Outcome::Failed(_)));
        outcome
    }
}

async fn read(mut response: Response<Incoming>) -> Outcome {
    if let Some(to) = hop::moved(response.headers()) {
        return Outcome::Moved(to, hop::history(response.headers()));
    }
    strip_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let answer = if response.body().size_hint().exact().is_none_or(|bytes| bytes > WHOLE) {
        Answer::Pods(response.map(Either::Right), Instant::now() + STREAMED, None)
    } else {
        let (head, body) = response.into_parts();
        match body.collect().await {
            Ok(body) => Answer::Own(Response::from_parts(head, body.to_bytes())),
            Err(error) => return Outcome::Failed(LinkError::Broke(error)),
        }
    };
    Outcome::Answered(Box::new(answer))
}
