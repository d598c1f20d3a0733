//! What is counted and timed.

use std::{sync::atomic::AtomicU64, time::Instant};

use kembed_queue::wire::Lane;
use kembed_runtime::traces::Span;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{backend::Took, cuda::sensors::Shown};

/// A counter of seconds.
pub type Seconds = Counter<f64, AtomicU64>;

/// Every metric of the pod.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests that embed, classify or tokenise and were answered, by the first digit of their status.
    pub requests: Family<Answered, Counter>,
    /// Requests that got no vectors, by why.
    pub refusals: Family<Refused, Counter>,
    /// Requests whose vectors are waited for.
    pub queue_requests: ByLane,
    /// Inputs that wait for the network.
    pub queue_inputs: ByLane,
    /// Tokens that wait for the network.
    pub queue_tokens: ByLane,
    /// Inputs that were in hand already when they were asked for, and not run again.
    pub joined: Counter,
    /// From being queued to being taken into a batch.
    pub queue_wait: Histogram,
    /// Inputs of a batch.
    pub batch_inputs: Histogram,
    /// Tokens of a batch, without padding.
    pub batch_tokens: Histogram,
    /// How much of what a batch may have it has.
    pub batch_fill: Histogram,
    /// Tokens that were run.
    pub tokens: Counter,
    /// A run of the network, by the clock on the wall.
    pub run: Histogram,
    /// What a device took for some of the batches, by its own clock.
    pub device: Family<OnDevice, Histogram, fn() -> Histogram>,
    /// Time that each worker spent running the network.
    pub busy: Family<ByWorker, Seconds>,
    /// What GPUs say of themselves.
    pub sensors: Shown,
    /// Tokenising one request.
    pub tokenise: Histogram,
    /// Writing one answer.
    pub serialise: Histogram,
    /// How long each stage of the start took.
    pub start: Family<OfStart, Gauge<f64, AtomicU64>>,
    /// Bytes that came from the model's source.
    pub download: Counter,
}

/// The labels of [`Metrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// The class of the status: `2xx`, `4xx` or `5xx`.
    pub code: &'static str,
}

/// The labels of [`Metrics::refusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// Why, as the answer's `code` says it.
    pub reason: &'static str,
}

/// The labels of what waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InLane {
    /// `interactive` or `bulk`.
    pub lane: &'static str,
}

/// A gauge for each lane. Both are looked up once: that takes a lock and a hash, and they are set for every request.
#[derive(Clone, Debug)]
pub struct ByLane {
    family: Family<InLane, Gauge>,
    lanes: [Gauge; 2],
}

impl ByLane {
    /// The gauge of a lane.
    pub fn of(&self, lane: Lane) -> &Gauge {
        &self.lanes[lane as usize]
    }
}

impl Default for ByLane {
    fn default() -> Self {
        let family = Family::default();
        let gauge = |lane: Lane| Gauge::clone(&family.get_or_create(&InLane::from(lane)));
        // In the order in which lanes are numbered.
        let lanes = [gauge(Lane::Interactive), gauge(Lane::Bulk)];
        Self { family, lanes }
    }
}

/// The labels of [`Metrics::busy`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByWorker {
    /// The worker's number, from 0.
    pub worker: usize,
}

/// The labels of [`Metrics::device`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OnDevice {
    /// The device's number, from 0.
    pub device: u32,
    /// `copy_in`, `compute`, `copy_out`, or `idle` before it.
    pub step: &'static str,
}

/// The labels of [`Metrics::start`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfStart {
    /// `fetching`, `loading` or `warming`.
    pub stage: &'static str,
}

impl From<Lane> for InLane {
    fn from(lane: Lane) -> Self {
        Self { lane: lane.as_str() }
    }
}

impl Metrics {
    /// Registers every metric.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self::unregistered();
        let m = new.clone();
        registry.register("kembed_requests", "Requests for embeddings that were answered", m.requests);
        registry.register("kembed_refusals", "Requests that got no vectors", m.refusals);
        registry.register(
            "kembed_queue_requests",
            "Requests whose vectors are waited for",
            m.queue_requests.family,
        );
        registry.register("kembed_queue_inputs", "Inputs that wait for the network", m.queue_inputs.family);
        registry.register("kembed_queue_tokens", "Tokens that wait for the network", m.queue_tokens.family);
        registry.register("kembed_joined_inputs", "Inputs that waited for another's vector", m.joined);
        registry.register("kembed_queue_wait_seconds", "From queued to taken into a batch", m.queue_wait);
        registry.register("kembed_batch_inputs", "Inputs of a batch", m.batch_inputs);
        registry.register("kembed_batch_tokens", "Tokens of a batch, without padding", m.batch_tokens);
        registry.register(
            "kembed_batch_fill_ratio",
            "How much of what it may have a batch has",
            m.batch_fill,
        );
        registry.register("kembed_tokens", "Tokens that were run", m.tokens);
        registry.register("kembed_run_seconds", "A run of the network, by the clock on the wall", m.run);
        registry.register(
            "kembed_device_seconds",
            "What a device took for one batch of sixteen, by its own clock",
            m.device,
        );
        registry.register("kembed_worker_busy_seconds", "Time spent running the network", m.busy);
        m.sensors.register(registry);
        registry.register("kembed_tokenise_seconds", "Tokenising one request", m.tokenise);
        registry.register("kembed_serialise_seconds", "Writing one answer", m.serialise);
        registry.register("kembed_start_seconds", "How long a stage of the start took", m.start);
        registry.register("kembed_download_bytes", "Bytes that came from the model's source", m.download);
        new
    }

    fn unregistered() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let sizes = || Histogram::new(exponential_buckets(1.0, 2.0, 14));
        Self {
            requests: Family::default(),
            refusals: Family::default(),
            queue_requests: ByLane::default(),
            queue_inputs: ByLane::default(),
            queue_tokens: ByLane::default(),
            joined: Counter::default(),
            queue_wait: seconds(),
            batch_inputs: sizes(),
            batch_tokens: sizes(),
            batch_fill: Histogram::new([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.]),
            tokens: Counter::default(),
            run: seconds(),
            device: Family::new_with_constructor(device_seconds),
            busy: Family::default(),
            sensors: Shown::default(),
            tokenise: seconds(),
            // Most answers are written in microseconds.
            serialise: Histogram::new(exponential_buckets(0.000_005, 4.0, 10)),
            start: Family::default(),
            download: Counter::default(),
        }
    }

    /// Times the tokenising of one request.
    pub fn tokenising<T>(&self, span: &Span, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let end = Instant::now();
        self.tokenise.observe(end.duration_since(start).as_secs_f64());
        span.past("tokenise", start, end);
        done
    }

    /// Notes how long a device took for a batch.
    pub fn device_took(&self, took: &Took) {
        let Took { device, copy_in, compute, copy_out, idle } = *took;
        let steps = [
            ("copy_in", Some(copy_in)),
            ("compute", Some(compute)),
            ("copy_out", Some(copy_out)),
            ("idle", idle),
        ];
        for (step, time) in steps {
            if let Some(time) = time {
                self.device.get_or_create(&OnDevice { device, step }).observe(time.as_secs_f64());
            }
        }
    }

    /// Counts a request as waiting for its vectors, until what is given is dropped.
    pub fn waits(&self, lane: Lane) -> Waits {
        let gauge = self.queue_requests.of(lane).clone();
        gauge.inc();
        Waits(gauge)
    }
}

/// From the 10 microseconds of a small copy to seconds.
fn device_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 3.0, 12))
}

/// A request that waits for its vectors.
pub struct Waits(Gauge);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}
