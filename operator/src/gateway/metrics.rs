//! What the gateway counts.

use std::{
    hash::Hash,
    ops::Deref,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use kembed_queue::wire::Lane;
use kembed_runtime::traces::Span;
use tracing::field::display;

use super::{load::Underway, name::ServiceName};

/// What the log calls the lines of requests, so that a filter can tell them from others.
const ACCESS: &str = "access";

/// Seconds: doubling from 0.5 ms to 65 s.
const BUCKETS: std::ops::Range<i32> = 0..18;

/// All metrics of the gateway. Clones count together; each request has one, and so it is a single reference.
#[derive(Clone, Debug)]
pub struct Metrics {
    instruments: Arc<Instruments>,
    access_log: bool,
}

/// Each of them.
#[derive(Clone, Debug)]
pub struct Instruments {
    requests: Counters<RequestLabels>,
    in_flight: Gauge,
    request_seconds: Histogram,
    upstream_seconds: Histogram,
    connect_failures: Counter,
    refusals: Family<RefusalLabels, Counter>,
    wanted: Counter,
    attempts: Counters<AttemptLabels>,
    waiting: Family<LaneLabels, Gauge>,
    in_hand: Family<LaneLabels, Gauge>,
    wait_seconds: Family<LaneLabels, Histogram, fn() -> Histogram>,
    /// Those of each lane: each request asks for all of them, more than once.
    lanes: [OnceLock<OfLane>; 2],
    ejections: Counter,
    hedges: Family<AttemptLabels, Counter>,
    forwarded: Counters<AttemptLabels>,
    peers: Gauge,
    services: Gauge,
    pods: Gauge,
}

impl Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.instruments
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    lane: &'static str,
}

impl LaneLabels {
    fn of(lane: Lane) -> Self {
        let lane = match lane {
            Lane::Interactive => "interactive",
            Lane::Bulk => "bulk",
        };
        Self { lane }
    }
}

/// A counter for each of some labels. Those that are asked for first, and so most often, are found without being looked up.
#[derive(Clone, Debug)]
struct Counters<L> {
    family: Family<L, Counter>,
    first: [OnceLock<(L, Counter)>; 4],
}

impl<L: Clone + Eq + Hash> Counters<L> {
    fn inc(&self, labels: L) {
        for place in &self.first {
            let new = || (labels.clone(), self.family.get_or_create_owned(&labels));
            let (known, counter) = place.get_or_init(new);
            if *known == labels {
                counter.inc();
                return;
            }
        }
        self.family.get_or_create(&labels).inc();
    }
}

impl<L: Clone + Eq + Hash> Default for Counters<L> {
    fn default() -> Self {
        Self { family: Family::default(), first: Default::default() }
    }
}

fn seconds() -> Histogram {
    Histogram::new(BUCKETS.map(|i| 0.000_5 * f64::from(i).exp2()))
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let instruments = Instruments {
            requests: Counters::default(),
            in_flight: Gauge::default(),
            request_seconds: seconds(),
            upstream_seconds: seconds(),
            connect_failures: Counter::default(),
            refusals: Family::default(),
            wanted: Counter::default(),
            attempts: Counters::default(),
            waiting: Family::default(),
            in_hand: Family::default(),
            wait_seconds: Family::new_with_constructor(seconds),
            lanes: [OnceLock::new(), OnceLock::new()],
            ejections: Counter::default(),
            hedges: Family::default(),
            forwarded: Counters::default(),
            peers: Gauge::default(),
            services: Gauge::default(),
            pods: Gauge::default(),
        };
        let m = instruments.clone();
        registry.register(
            "kembed_gateway_requests",
            "Requests by route and class of the answer's status",
            m.requests.family,
        );
        registry.register(
            "kembed_gateway_requests_in_flight",
            "Requests not yet answered to the end",
            m.in_flight,
        );
        registry.register(
            "kembed_gateway_request_seconds",
            "Time from a request's head to the last byte of its answer",
            m.request_seconds,
        );
        registry.register(
            "kembed_gateway_upstream_seconds",
            "Time from sending a request to a pod to the head of the pod's answer",
            m.upstream_seconds,
        );
        registry.register(
            "kembed_gateway_connect_failures",
            "Attempts to reach a pod that found nobody listening",
            m.connect_failures,
        );
        registry.register("kembed_gateway_refusals", "Answers that are not a pod's, by reason", m.refusals);
        registry.register(
            "kembed_gateway_wakes",
            "Times that somebody began to want a service without pods",
            m.wanted,
        );
        registry.register(
            "kembed_gateway_attempts",
            "Requests given to a pod, by how that ended",
            m.attempts.family,
        );
        registry.register("kembed_gateway_waiting_requests", "Requests that wait for a pod", m.waiting);
        registry.register("kembed_gateway_in_hand_requests", "Requests that a pod has in hand", m.in_hand);
        registry.register(
            "kembed_gateway_wait_seconds",
            "Time from when a request came to when a pod got it",
            m.wait_seconds,
        );
        registry.register("kembed_gateway_ejections", "Times that a pod was given nothing more", m.ejections);
        registry.register(
            "kembed_gateway_hedges",
            "Requests that were given to a second pod too, by how that ended",
            m.hedges,
        );
        registry.register(
            "kembed_gateway_forwarded",
            "Requests sent to the gateway that owns their service, by how that ended",
            m.forwarded.family,
        );
        registry.register("kembed_gateway_peers", "Other gateways that are connected", m.peers);
        registry.register("kembed_gateway_services", "EmbeddingServices known", m.services);
        registry.register("kembed_gateway_pods", "Pods of EmbeddingServices known", m.pods);
        Self { instruments: Arc::new(instruments), access_log: false }
    }

    /// Has each request logged at info instead of debug.
    #[must_use]
    pub fn with_access_log(mut self, access_log: bool) -> Self {
        self.access_log = access_log;
        self
    }

    /// A request has come, with these headers.
    pub fn begin(&self, method: Method, headers: &HeaderMap) -> Exchange {
        self.in_flight.inc();
        let span = Span::of_request(headers, || method.to_string());
        Exchange {
            metrics: self.clone(),
            began: Instant::now(),
            method,
            route: "none",
            service: None,
            key: None,
            status: None,
            load: None,
            span,
        }
    }

    /// Requests not yet answered to the end.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// A pod answered after so long.
    pub fn answered(&self, after: Duration) {
        self.upstream_seconds.observe(after.as_secs_f64());
    }

    /// A request was given to a pod, with this outcome out of a bounded set.
    pub fn attempted(&self, outcome: &'static str) {
        self.attempts.inc(AttemptLabels { outcome });
    }

    /// A request was given to a second pod too, with this outcome out of a bounded set.
    pub fn hedged(&self, outcome: &'static str) {
        self.hedges.get_or_create(&AttemptLabels { outcome }).inc();
    }

    /// A pod was ejected.
    pub fn ejected(&self) {
        self.ejections.inc();
    }

    /// A request was sent to its owner, with this outcome out of a bounded set.
    pub fn forwarded(&self, outcome: &'static str) {
        self.forwarded.inc(AttemptLabels { outcome });
    }

    /// So many other gateways are connected now.
    pub fn connected(&self, peers: usize) {
        self.peers.set(i64::try_from(peers).unwrap_or(i64::MAX));
    }

    /// A request has come and waits.
    pub fn stay(&self, lane: Lane) -> Stay {
        self.of(lane).waiting.inc();
        Stay { metrics: self.clone(), lane, is_in_hand: false }
    }

    fn of(&self, lane: Lane) -> &OfLane {
        let [interactive, bulk] = &self.lanes;
        let known = match lane {
            Lane::Interactive => interactive,
            Lane::Bulk => bulk,
        };
        known.get_or_init(|| {
            let lane = LaneLabels::of(lane);
            OfLane {
                waiting: self.waiting.get_or_create_owned(&lane),
                in_hand: self.in_hand.get_or_create_owned(&lane),
                wait_seconds: self.wait_seconds.get_or_create_owned(&lane),
            }
        })
    }

    /// A pod could not be reached.
    pub fn connect_failed(&self) {
        self.connect_failures.inc();
    }

    /// A request was refused for a reason out of a bounded set.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Somebody began to want a service without pods.
    pub fn wanted(&self) {
        self.wanted.inc();
    }

    /// So many are known now.
    pub fn known(&self, services: usize, pods: usize) {
        self.services.set(i64::try_from(services).unwrap_or(i64::MAX));
        self.pods.set(i64::try_from(pods).unwrap_or(i64::MAX));
    }
}

/// A request that waits or is in hand; counted as such until it is dropped.
#[derive(Debug)]
pub struct Stay {
    metrics: Metrics,
    lane: Lane,
    is_in_hand: bool,
}

/// What is counted of one lane.
#[derive(Clone, Debug)]
struct OfLane {
    waiting: Gauge,
    in_hand: Gauge,
    wait_seconds: Histogram,
}

impl Stay {
    /// A pod gets it, so long after it came.
    pub fn granted(&mut self, waited: Duration) {
        let lane = self.metrics.of(self.lane);
        lane.wait_seconds.observe(waited.as_secs_f64());
        if !std::mem::replace(&mut self.is_in_hand, true) {
            lane.waiting.dec();
            lane.in_hand.inc();
        }
    }

    /// It waits again.
    pub fn returned(&mut self) {
        if std::mem::replace(&mut self.is_in_hand, false) {
            let lane = self.metrics.of(self.lane);
            lane.in_hand.dec();
            lane.waiting.inc();
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let lane = self.metrics.of(self.lane);
        let place = if self.is_in_hand { &lane.in_hand } else { &lane.waiting };
        place.dec();
    }
}

/// One request and its answer; counted, logged and traced when dropped, which is when the last byte is sent or the client has gone.
#[derive(Debug)]
pub struct Exchange {
    metrics: Metrics,
    began: Instant,
    method: Method,
    /// How its service was found: `host`, `path`, `model`, `forwarded` by another gateway, `models` for the list, or `none`.
    pub route: &'static str,
    /// The service that it is for, once found. For the log: as a label it would be unbounded.
    pub service: Option<ServiceName>,
    /// Name of the key that it showed, where the service wants one. For the log.
    pub key: Option<String>,
    /// Status of the answer, once there is one.
    pub status: Option<StatusCode>,
    /// How it counts in the service's load, if it does.
    pub load: Option<Underway>,
    /// Its part of a trace.
    pub span: Span,
}

impl Exchange {
    /// As in the log, and no more.
    fn trace(&self) {
        let Self { method, route, service, status, span, .. } = self;
        if !span.is_on() {
            return;
        }
        span.set("http.request.method", method.to_string());
        span.set("kembed.route", *route);
        if let Some(service) = service {
            span.set("kembed.service", service.to_string());
        }
        if let Some(status) = status {
            span.set("http.response.status_code", i64::from(status.as_u16()));
        }
        span.end(status.is_some_and(|status| status.is_server_error()));
    }

    /// An input may stand in the URL and a key in the headers, neither of which is therefore logged.
    fn log(&self, seconds: f64) {
        let Self { method, route, service, key, .. } = self;
        let (service, status) = (service.as_ref().map(display), self.status.map(|status| status.as_u16()));
        if self.metrics.access_log {
            tracing::info!(target: ACCESS, %method, route, service, key, status, seconds, "answered");
        } else {
            tracing::debug!(target: ACCESS, %method, route, service, key, status, seconds, "answered");
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (code, seconds) = (class(self.status), self.began.elapsed().as_secs_f64());
        self.log(seconds);
        self.trace();
        self.metrics.in_flight.dec();
        self.metrics.requests.inc(RequestLabels { route: self.route, code });
        self.metrics.request_seconds.observe(seconds);
        if let Some(load) = self.load.take() {
            load.answered(self.status);
        }
    }
}

/// Without a status the client left before there was one.
fn class(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16() / 100) {
        None => "cancelled",
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(_) => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::documentation::undocumented;

    #[test]
    fn every_metric_is_documented() {
        let mut registry = Registry::default();
        Metrics::new(&mut registry);
        assert_eq!(undocumented(&registry), [""; 0]);
    }

    #[test]
    fn a_request_is_counted_when_it_is_over() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a String takes all");
            text
        };
        let mut exchange = metrics.begin(Method::GET, &HeaderMap::new());
        assert!(text().contains("kembed_gateway_requests_in_flight 1\n"));
        exchange.route = "host";
        exchange.status = Some(StatusCode::OK);
        drop(exchange);
        drop(metrics.begin(Method::POST, &HeaderMap::new()));
        metrics.refused("unavailable");
        metrics.known(2, 3);
        for line in [
            "kembed_gateway_requests_in_flight 0\n",
            "kembed_gateway_requests_total{route=\"host\",code=\"2xx\"} 1\n",
            "kembed_gateway_requests_total{route=\"none\",code=\"cancelled\"} 1\n",
            "kembed_gateway_request_seconds_count 2\n",
            "kembed_gateway_refusals_total{reason=\"unavailable\"} 1\n",
            "kembed_gateway_services 2\n",
            "kembed_gateway_pods 3\n",
        ] {
            assert!(text().contains(line), "{line} is missing in\n{}", text());
        }
    }
}
