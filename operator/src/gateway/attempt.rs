//! One attempt to have a request answered by the pod that it was granted.

use std::{error::Error, pin::pin, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::Entry, request};
use kembed_queue::{Failure, credit::PodLoad};
use tokio::time::{Instant, timeout_at};

use super::{
    leg::Leg,
    names,
    owner::Asked,
    service_queue::Granted,
    timing,
    upstream::{PodBody, Upstream},
};

/// What a pod is taken to tell that answers and tells nothing, for it is of a release before credit: some batches.
const UNTOLD: PodLoad = PodLoad { credit: 4096, work: 0, rate: 0, sessions: 0 };

/// A request on its way to a pod.
pub struct Attempt<'a> {
    asked: &'a Asked,
    granted: &'a Granted,
    /// Time that the pod has.
    pub limit: Duration,
    /// When that is over.
    pub deadline: Instant,
    /// It is less than pods have, for the client wants it sooner.
    is_cut: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The pod began to answer, and may have told its load.
    Answered(Response<PodBody>, Option<PodLoad>),
    /// It did nothing with it, for lack of credit.
    NoCredit(Option<PodLoad>),
    /// It failed before the first byte of an answer, or the answer is that another pod should be tried.
    Failed(Failure, Option<Response<PodBody>>),
    /// It took too long.
    TimedOut,
    /// It took longer than the client wanted to wait, which says nothing of the pod.
    TooLate,
}

/// What an answer means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Final,
    NoCredit,
    TryAnother(Failure),
}

impl<'a> Attempt<'a> {
    /// Begins now. The pod has `request_timeout` where the service does not say, and less if the client wants it sooner.
    pub fn new(asked: &'a Asked, granted: &'a Granted, request_timeout: Duration) -> Self {
        let began = Instant::now();
        let limit = granted.view.request_timeout.unwrap_or(request_timeout);
        let left = asked.terms.deadline.map(|deadline| deadline.saturating_duration_since(began.into_std()));
        let cut = left.filter(|left| *left < limit);
        let (limit, is_cut) = (cut.unwrap_or(limit), cut.is_some());
        Self { asked, granted, limit, deadline: began + limit, is_cut }
    }

    /// Makes it.
    pub async fn make(self, upstream: &Upstream) -> Outcome {
        let mut head = self.head();
        let leg = Leg::attempt(Some(&self.granted.pod.endpoint.pod), &mut head.headers);
        let outcome = self.give(head, upstream).await;
        leg.ended(outcome.label(), matches!(outcome, Outcome::Failed(..) | Outcome::TimedOut));
        outcome
    }

    async fn give(self, head: request::Parts, upstream: &Upstream) -> Outcome {
        let pod = &self.granted.pod;
        // Pinned, as else all of it would be moved from here to there and on.
        let sent = pin!(upstream.give(&pod.endpoint, head, &self.asked.target, self.asked.body.clone()));
        let response = tokio::select! {
            biased;
            response = timeout_at(self.deadline, sent) => response,
            // Whatever took it away, it was not this request, whose connection would have broken.
            () = pod.gone.cancelled() => return Outcome::Failed(Failure::Unreached, None),
        };
        let error = match response {
            Ok(Ok((response, took))) => return self.read(response, took),
            Ok(Err(error)) => error,
            Err(_) if self.is_cut => return Outcome::TooLate,
            Err(_) => return Outcome::TimedOut,
        };
        let failure = if error.nothing_was_sent() { Failure::Unreached } else { Failure::Broke };
        let (service, pod) = (&self.asked.service, &pod.endpoint.pod);
        tracing::warn!(%service, pod, ?failure, error = &error as &dyn Error, "a pod gave no answer");
        Outcome::Failed(failure, None)
    }

    /// The head as the pod gets it.
    fn head(&self) -> request::Parts {
        let mut head = request::Parts::clone(&self.asked.head);
        head.headers.insert(&names::GRANTED, HeaderValue::from_static("true"));
        let ms = || HeaderValue::from(u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX).max(1));
        match head.headers.entry(&names::DEADLINE) {
            Entry::Vacant(place) => _ = place.insert(ms()),
            Entry::Occupied(mut told) if self.asked.terms.deadline.is_some() => _ = told.insert(ms()),
            // What the client wrote there and is no time is the pod's to refuse.
            Entry::Occupied(_) => (),
        }
        head
    }

    fn read(&self, mut response: Response<PodBody>, took: Duration) -> Outcome {
        let load = load(response.headers());
        let recorded = self.granted.view.space.as_ref();
        let told = response.headers().get(&names::SPACE);
        if let (Some(told), Some(recorded)) = (told, recorded)
            && told.as_bytes() != recorded.digest.as_bytes()
        {
            // It became another one since it was asked. Its vectors must not pass.
            tracing::warn!(service = %self.asked.service, pod = self.granted.pod.endpoint.pod, "a pod has another space");
            return Outcome::Failed(Failure::Erred, None);
        }
        match meaning(response.status(), response.headers()) {
            Meaning::NoCredit => Outcome::NoCredit(load),
            Meaning::TryAnother(failure) => {
                self.mark(response.headers_mut(), took);
                Outcome::Failed(failure, Some(response))
            }
            Meaning::Final => {
                self.mark(response.headers_mut(), took);
                let load = load.or_else(|| response.status().is_success().then_some(UNTOLD));
                Outcome::Answered(response, load)
            }
        }
    }

    /// Says which space it was and how long it took.
    fn mark(&self, headers: &mut HeaderMap, took: Duration) {
        if let Some(space) = &self.granted.view.space {
            set(headers, &names::SPACE, &space.digest);
            if let Some(revision) = &space.revision {
                set(headers, &names::REVISION, revision);
            }
        }
        timing::tell(headers, &[("hold", self.granted.grant.waited), ("pod", took)]);
    }
}

impl Outcome {
    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answered(..) => "answered",
            Self::NoCredit(_) => "no_credit",
            Self::Failed(Failure::Unreached, _) => "unreached",
            Self::Failed(Failure::Unready, _) => "unready",
            Self::Failed(Failure::Broke, _) => "broke",
            Self::Failed(Failure::Erred, _) => "erred",
            Self::TimedOut => "timed_out",
            Self::TooLate => "too_late",
        }
    }
}

/// Has a header say this. As a rule it does.
fn set(headers: &mut HeaderMap, name: &HeaderName, text: &str) {
    let says = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    if !says.eq([text.as_bytes()])
        && let Ok(value) = HeaderValue::try_from(text)
    {
        headers.insert(name, value);
    }
}

fn load(headers: &HeaderMap) -> Option<PodLoad> {
    headers.get(&names::POD_LOAD)?.to_str().ok().and_then(PodLoad::parse)
}

fn meaning(status: StatusCode, headers: &HeaderMap) -> Meaning {
    if status.is_success() {
        return Meaning::Final;
    }
    let retry = headers.get(&names::SHOULD_RETRY).map(HeaderValue::as_bytes);
    match status {
        _ if headers.contains_key(&names::NO_CREDIT) => Meaning::NoCredit,
        _ if headers.contains_key(&names::NOT_READY) => Meaning::TryAnother(Failure::Unready),
        // One from before credit, whose own queue is full.
        StatusCode::TOO_MANY_REQUESTS if !headers.contains_key(&names::POD_LOAD) => Meaning::NoCredit,
        // No other pod has more time.
        StatusCode::GATEWAY_TIMEOUT => Meaning::Final,
        _ if status.is_server_error() && retry == Some(b"true") => Meaning::TryAnother(Failure::Erred),
        // Of something that stands before the pod.
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE if retry.is_none() => {
            Meaning::TryAnother(Failure::Erred)
        }
        _ => Meaning::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_it_is_to_say_once() {
        let mut headers = HeaderMap::new();
        set(&mut headers, &names::SPACE, "one");
        assert_eq!(headers[&names::SPACE], "one");
        headers.append(&names::SPACE, HeaderValue::from_static("one"));
        set(&mut headers, &names::SPACE, "one");
        set(&mut headers, &names::SPACE, "two");
        assert_eq!(headers.get_all(&names::SPACE).iter().collect::<Vec<_>>(), ["two"]);
        set(&mut headers, &names::SPACE, "no\nvalue");
        assert_eq!(headers[&names::SPACE], "two");
    }

    #[test]
    fn answers_mean_what_pods_of_each_release_mean() {
        let of = |status: u16, headers: &[(&'static str, &'static str)]| {
            let line = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            meaning(StatusCode::from_u16(status).expect("a status"), &headers.iter().map(line).collect())
        };
        let (again, load) = (("x-should-retry", "true"), ("x-kembed-pod-load", "credit=1"));
        assert_eq!(of(200, &[]), Meaning::Final);
        assert_eq!(of(400, &[("x-should-retry", "false")]), Meaning::Final);
        assert_eq!(of(503, &[again, load, ("x-kembed-no-credit", "true")]), Meaning::NoCredit);
        assert_eq!(of(429, &[again]), Meaning::NoCredit, "a full queue of an older pod");
        assert_eq!(of(429, &[again, load]), Meaning::Final);
        assert_eq!(of(503, &[again, ("x-kembed-not-ready", "true")]), Meaning::TryAnother(Failure::Unready));
        let erred = Meaning::TryAnother(Failure::Erred);
        assert_eq!(of(500, &[again]), erred);
        assert_eq!(of(503, &[again]), erred, "a pod of a release that does not tell whether it is ready");
        assert_eq!(of(503, &[]), erred, "a proxy before the pod");
        assert_eq!(of(503, &[("x-should-retry", "false")]), Meaning::Final);
        assert_eq!(of(500, &[]), Meaning::Final);
        assert_eq!(of(504, &[again]), Meaning::Final);
    }
}
