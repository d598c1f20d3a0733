//! Metrics of the autoscaler.

use std::{sync::atomic::AtomicU64, time::Duration};

use kembed_scaling::Reason;
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

use super::needs::Needs;

/// How an attempt to write a count ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// The count is written.
    Written,
    /// The service has changed since, and is looked at again.
    Changed,
    /// The write failed, and is tried again.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    reason: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TuningLabel {
    outcome: &'static str,
}

/// How a search for a better way to scale ends: none was found, or one was.
const TUNED: [&str; 2] = ["kept", "changed"];

/// Metrics of the autoscaler. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    gateways: Gauge,
    known: Gauge<f64, AtomicU64>,
    reports: Counter,
    stream_failures: Counter,
    writes: Family<WriteLabels, Counter>,
    wake_seconds: Histogram,
    look_seconds: Histogram,
    looked_at: Gauge,
    tunings: Family<TuningLabel, Counter>,
    tuning_seconds: Counter<f64, AtomicU64>,
    /// What was decided in the last look.
    pub needs: Needs,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            gateways: Gauge::default(),
            known: Gauge::default(),
            reports: Counter::default(),
            stream_failures: Counter::default(),
            writes: Family::default(),
            // 1 ms to 8 s.
            wake_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            // 0.1 ms to 0.8 s.
            look_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            looked_at: Gauge::default(),
            tunings: Family::default(),
            tuning_seconds: Counter::default(),
            needs: Needs::default(),
        };
        // What was never counted is 0, not unknown: a rate over what begins at 1 misses the first.
        for reason in Reason::ALL.iter().filter(|reason| reason.changes_the_count()) {
            for outcome in [Outcome::Written, Outcome::Changed, Outcome::Failed] {
                drop(metrics.writes.get_or_create(&WriteLabels { reason: reason.as_str(), outcome }));
            }
        }
        for outcome in TUNED {
            drop(metrics.tunings.get_or_create(&TuningLabel { outcome }));
        }
        let m = metrics.clone();
        registry.register("kembed_autoscaler_gateways", "Gateways whose load is followed", m.gateways);
        registry.register("kembed_autoscaler_load_known", "1 while no followed gateway is silent", m.known);
        registry.register("kembed_autoscaler_reports", "Reports that gateways have sent", m.reports);
        registry.register(
            "kembed_autoscaler_stream_failures",
            "Streams of reports that ended or could not be opened",
            m.stream_failures,
        );
        registry.register(
            "kembed_autoscaler_writes",
            "Attempts to write a count, by its reason and their outcome",
            m.writes,
        );
        registry.register(
            "kembed_autoscaler_wake_seconds",
            "Time from a gateway's word that somebody waits to the written count",
            m.wake_seconds,
        );
        registry.register(
            "kembed_autoscaler_look_seconds",
            "Time it takes to look at all services, once a second",
            m.look_seconds,
        );
        registry.register(
            "kembed_autoscaler_services",
            "Services that were looked at, for something happens to them",
            m.looked_at,
        );
        registry.register(
            "kembed_autoscaler_tunings",
            "Searches for a better way to scale a service, by whether one was found",
            m.tunings,
        );
        registry.register(
            "kembed_autoscaler_tuning_seconds",
            "Time spent on these searches",
            m.tuning_seconds,
        );
        registry.register_collector(Box::new(m.needs));
        metrics
    }

    /// So many gateways are followed.
    pub fn follows(&self, gateways: usize) {
        self.gateways.set(i64::try_from(gateways).unwrap_or(i64::MAX));
    }

    /// Whether all of them speak.
    pub fn knows(&self, known: bool) {
        self.known.set(if known { 1.0 } else { 0.0 });
    }

    /// A gateway sent a report.
    pub fn reported(&self) {
        self.reports.inc();
    }

    /// A stream ended or could not be opened.
    pub fn stream_failed(&self) {
        self.stream_failures.inc();
    }

    /// An attempt to write a count has ended, so long after it was decided.
    pub fn wrote(&self, reason: Reason, outcome: Outcome, after: Duration) {
        self.writes.get_or_create(&WriteLabels { reason: reason.as_str(), outcome }).inc();
        if (reason, outcome) == (Reason::Activated, Outcome::Written) {
            self.wake_seconds.observe(after.as_secs_f64());
        }
    }

    /// So many services were looked at, in that time.
    pub fn looked(&self, services: usize, took: Duration) {
        self.looked_at.set(i64::try_from(services).unwrap_or(i64::MAX));
        self.look_seconds.observe(took.as_secs_f64());
    }

    /// A better way to scale a service was looked for so long, and found or not.
    pub fn tuned(&self, found: bool, took: Duration) {
        let outcome = TUNED[usize::from(found)];
        self.tunings.get_or_create(&TuningLabel { outcome }).inc();
        self.tuning_seconds.inc_by(took.as_secs_f64());
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

    #[test]
    fn what_was_never_counted_is_zero() {
        let mut registry = Registry::default();
        Metrics::new(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes anything");
        for reason in Reason::ALL {
            let line = format!(
                "kembed_autoscaler_writes_total{{reason=\"{}\",outcome=\"Written\"}} 0",
                reason.as_str()
            );
            assert_eq!(text.contains(&line), reason.changes_the_count(), "{line}");
        }
        assert!(text.contains("kembed_autoscaler_tunings_total{outcome=\"changed\"} 0"), "{text}");
    }
}
