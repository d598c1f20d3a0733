//! What is counted and timed.

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

/// Every metric of the pod.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests that embed, classify or tokenise and were answered, by the first digit of their status.
    pub requests: Family<Answered, Counter>,
    /// Inputs that wait for the network.
    pub queue_inputs: Gauge,
    /// Tokens that wait for the network.
    pub queue_tokens: Gauge,
    /// Inputs that were in hand already when they were asked for, and not run again.
    pub joined: Counter,
    /// From being queued to being taken into a batch.
    pub queue_wait: Histogram,
    /// Inputs of a batch.
    pub batch_inputs: Histogram,
    /// Tokens of a batch, without padding.
    pub batch_tokens: Histogram,
    /// A run of the network.
    pub run: Histogram,
    /// Tokenising one request.
    pub tokenise: Histogram,
    /// Bytes that came from the model's source.
    pub download: Counter,
}

/// The labels of [`Metrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// The class of the status: `2xx`, `4xx` or `5xx`.
    pub code: &'static str,
}

impl Metrics {
    /// Registers every metric.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let sizes = || Histogram::new(exponential_buckets(1.0, 2.0, 14));
        let new = Self {
            requests: Family::default(),
            queue_inputs: Gauge::default(),
            queue_tokens: Gauge::default(),
            joined: Counter::default(),
            queue_wait: seconds(),
            batch_inputs: sizes(),
            batch_tokens: sizes(),
            run: seconds(),
            tokenise: seconds(),
            download: Counter::default(),
        };
        let m = new.clone();
        registry.register("kembed_requests", "Requests for embeddings that were answered", m.requests);
        registry.register("kembed_queue_inputs", "Inputs that wait for the network", m.queue_inputs);
        registry.register("kembed_queue_tokens", "Tokens that wait for the network", m.queue_tokens);
        registry.register("kembed_joined_inputs", "Inputs that waited for another's vector", m.joined);
        registry.register("kembed_queue_wait_seconds", "From queued to taken into a batch", m.queue_wait);
        registry.register("kembed_batch_inputs", "Inputs of a batch", m.batch_inputs);
        registry.register("kembed_batch_tokens", "Tokens of a batch, without padding", m.batch_tokens);
        registry.register("kembed_run_seconds", "A run of the network", m.run);
        registry.register("kembed_tokenise_seconds", "Tokenising one request", m.tokenise);
        registry.register("kembed_download_bytes", "Bytes that came from the model's source", m.download);
        new
    }
}
