//! What was sent with each key, as metrics.
//!
//! It is read from the services at each scrape. So a key that goes, alone or with its service, takes its counters with it,
//! and a key with which nothing was sent has none: there are never more than keys in specs, of which a service has 256 at
//! most.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

use super::{keys::Usage, knowledge::Knowledge, name::ServiceName};

/// Tells the usage of all keys.
pub struct KeyUsage(Arc<Knowledge>);

impl KeyUsage {
    /// Of the services known there.
    pub fn new(knowledge: Arc<Knowledge>) -> Self {
        Self(knowledge)
    }

    /// Of each key with which anything was sent.
    fn used(&self) -> Vec<(ServiceName, String, Usage)> {
        self.0.read(|directory| {
            let keys = directory
                .views()
                .flat_map(|(service, view)| view.keys.usage().map(move |(key, usage)| (service, key, usage)));
            let used = keys.filter(|(_, _, usage)| *usage != Usage::default());
            used.map(|(service, key, usage)| (service.clone(), key.to_owned(), usage)).collect()
        })
    }
}

impl fmt::Debug for KeyUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyUsage")
    }
}

impl Collector for KeyUsage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let used = self.used();
        let help = "Requests by the key that they showed, and whether they were within its limits";
        let mut requests =
            encoder.encode_descriptor("kembed_gateway_key_requests", help, None, MetricType::Counter)?;
        for (service, key, usage) in &used {
            for (outcome, count) in [("admitted", usage.admitted), ("limited", usage.limited)] {
                let labels = [labels(service, key).as_slice(), &[("outcome", outcome)]].concat();
                ConstCounter::new(count).encode(requests.encode_family(&labels)?)?;
            }
        }
        let help = "Tokens of requests by the key that they showed";
        let mut tokens =
            encoder.encode_descriptor("kembed_gateway_key_tokens", help, None, MetricType::Counter)?;
        for (service, key, usage) in &used {
            ConstCounter::new(usage.tokens).encode(tokens.encode_family(&labels(service, key))?)?;
        }
        Ok(())
    }
}

fn labels<'a>(service: &'a ServiceName, key: &'a str) -> [(&'static str, &'a str); 3] {
    [("namespace", service.namespace()), ("service", service.name()), ("key", key)]
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;
    use crate::{
        documentation::undocumented,
        gateway::{
            availability::Service,
            directory::Update,
            fixtures::service,
            keys::{Allowance, ApiKey, KeyHash},
            metrics::Metrics,
        },
    };

    #[test]
    fn counters_come_and_go_with_their_key() {
        let knowledge = Arc::new(Knowledge::new(Metrics::new(&mut Registry::default())));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(KeyUsage::new(knowledge.clone())));
        assert_eq!(undocumented(&registry), [""; 0]);
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a String takes all");
            text
        };
        let key = |name: &str| ApiKey {
            name: name.to_owned(),
            hash: Some(KeyHash::of(name.as_bytes())),
            allowance: Allowance { requests_per_second: Some(1), tokens_per_minute: None },
        };
        let put =
            |service: Service| knowledge.update(|directory| directory.update_services(Update::Put(service)));
        put(Service { keys: vec![key("used"), key("idle")], ..service("minilm") });
        let name = ServiceName::new("team", "minilm").expect("two labels");
        let view = knowledge.read(|directory| directory.view(&name).cloned()).expect("a known service");
        let account = view.keys.find(&KeyHash::of(b"used")).expect("listed");
        let now = Instant::now();
        account.admit(9, now).expect("the first").settle(7);
        account.admit(9, now).expect_err("the second");
        // News of the service in between change nothing.
        put(Service { replicas: 3, keys: vec![key("used"), key("idle")], ..service("minilm") });
        for line in [
            r#"requests_total{namespace="team",service="minilm",key="used",outcome="admitted"} 1"#,
            r#"requests_total{namespace="team",service="minilm",key="used",outcome="limited"} 1"#,
            r#"tokens_total{namespace="team",service="minilm",key="used"} 7"#,
        ] {
            assert!(
                text().contains(&format!("kembed_gateway_key_{line}\n")),
                "{line} is missing in\n{}",
                text()
            );
        }
        assert!(!text().contains("idle"), "{}", text());
        knowledge.update(|directory| directory.update_services(Update::Gone(service("minilm"))));
        assert!(!text().contains("team"), "{}", text());
    }
}
