//! What was decided for each service in the last look, as metrics.
//!
//! They are of those services alone that were looked at, for something happens to them: one that sleeps has none.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use kembed_scaling::{Decision, Terms};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

/// The last decisions, by `<namespace>/<name>`. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Needs(Arc<Mutex<BTreeMap<String, Decision>>>);

impl Needs {
    /// These were decided, and no others.
    pub fn set(&self, decisions: BTreeMap<String, Decision>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = decisions;
    }
}

impl Collector for Needs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let decisions = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let help = "Replicas that each term asks for, before the bounds";
        let mut needs =
            encoder.encode_descriptor("kembed_autoscaler_need_replicas", help, None, MetricType::Gauge)?;
        for (service, decision) in &decisions {
            let Terms { rate, backlog, queue, slo } = decision.terms;
            for (term, need) in [("rate", rate), ("backlog", backlog), ("queue", queue), ("slo", slo)] {
                let labels = [labels(service).as_slice(), &[("term", term)]].concat();
                ConstGauge::new(need).encode(needs.encode_family(&labels)?)?;
            }
        }
        let help = "Replicas that were decided";
        let mut decided =
            encoder.encode_descriptor("kembed_autoscaler_replicas", help, None, MetricType::Gauge)?;
        for (service, decision) in &decisions {
            let replicas = f64::from(decision.replicas);
            ConstGauge::new(replicas).encode(decided.encode_family(&labels(service))?)?;
        }
        Ok(())
    }
}

fn labels(service: &str) -> [(&'static str, &str); 2] {
    let (namespace, name) = service.split_once('/').unwrap_or_default();
    [("namespace", namespace), ("service", name)]
}

#[cfg(test)]
mod tests {
    use kembed_scaling::Reason;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn each_term_is_told_while_something_happens() {
        let (needs, mut registry) = (Needs::default(), Registry::default());
        registry.register_collector(Box::new(needs.clone()));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a String takes all");
            text
        };
        let terms = Terms { rate: 2.5, ..Terms::default() };
        let decision = Decision { replicas: 3, reason: Reason::MoreWork, terms, unattainable: None };
        needs.set([("team/minilm".to_owned(), decision)].into());
        for line in [
            "kembed_autoscaler_need_replicas{namespace=\"team\",service=\"minilm\",term=\"rate\"} 2.5\n",
            "kembed_autoscaler_replicas{namespace=\"team\",service=\"minilm\"} 3.0\n",
        ] {
            assert!(text().contains(line), "{}", text());
        }
        needs.set(BTreeMap::new());
        assert!(!text().contains("minilm"), "{}", text());
    }
}
