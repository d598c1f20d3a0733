//! Metrics of the controller.

use std::{sync::atomic::AtomicU64, time::Instant};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// The objects are as the spec says.
    Applied,
    /// Something in the spec or the cluster stands in the way, and the status says so.
    Hindered,
    /// It is tried again.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// Metrics of the controller.
#[derive(Clone)]
pub struct Metrics {
    reconciliations: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    status_writes: Counter,
    leading: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciliations: Family::default(),
            // 1 ms to 16 s: up to ten requests to the API server, one to each new pod.
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            status_writes: Counter::default(),
            leading: Gauge::default(),
        };
        registry.register(
            "kembed_controller_reconciliations",
            "Reconciliations by outcome",
            metrics.reconciliations.clone(),
        );
        registry.register(
            "kembed_controller_reconciliation_seconds",
            "Time a reconciliation takes",
            metrics.duration.clone(),
        );
        registry.register(
            "kembed_controller_status_writes",
            "Writes of a status, which happen only when it changes",
            metrics.status_writes.clone(),
        );
        registry.register("kembed_controller_leading", "1 if this process leads", metrics.leading.clone());
        metrics
    }

    /// A reconciliation that began at `start` has ended.
    pub fn reconciled(&self, outcome: Outcome, start: Instant) {
        self.reconciliations.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(start.elapsed().as_secs_f64());
    }

    /// A status was written.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// Whether this process leads.
    pub fn set_leading(&self, leading: bool) {
        self.leading.set(if leading { 1.0 } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documentation::undocumented;

    #[test]
    fn every_metric_is_documented() {
        let mut registry = Registry::default();
        Metrics::new(&mut registry);
        assert_eq!(undocumented(&registry), [""; 0]);
    }
}
