//! How much pods may be given, and have, as metrics: summed up at each scrape, so that no request has to keep them.

use std::{fmt, ops::AddAssign, sync::Arc};

use kembed_queue::{ledger::Pod, wire::Lane};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::owner::Owner;

/// Credit of some pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Tokens of one lane that they take at once, as those of them told who told anything.
    pub tokens: u64,
    /// Tokens that they have, as estimated.
    pub interactive: u64,
    /// The same of lane bulk.
    pub bulk: u64,
    /// Pods that get nothing, for how they failed.
    pub ejected: u64,
}

impl Credit {
    /// Of one pod. One that left has nothing to give, and may still have requests.
    pub fn of(pod: &Pod) -> Self {
        let told = pod.told.filter(|_| pod.is_joined && pod.health.is_well());
        Self {
            tokens: told.map_or(0, |told| told.credit),
            interactive: pod.in_hand(Lane::Interactive),
            bulk: pod.in_hand(Lane::Bulk),
            ejected: u64::from(pod.is_joined && !pod.health.is_well()),
        }
    }
}

impl AddAssign for Credit {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.interactive += other.interactive;
        self.bulk += other.bulk;
        self.ejected += other.ejected;
    }
}

/// Tells the credit of all pods of the services that this gateway owns.
pub struct PodCredit(Arc<Owner>);

impl PodCredit {
    /// As counted there.
    pub fn new(owner: Arc<Owner>) -> Self {
        Self(owner)
    }
}

impl fmt::Debug for PodCredit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PodCredit")
    }
}

impl Collector for PodCredit {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Credit { tokens, interactive, bulk, ejected } = self.0.credit();
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let help = "Tokens of a lane that pods take at once";
        gauge(tokens).encode(describe(&mut encoder, "kembed_gateway_credit_tokens", help)?)?;
        let help = "Tokens that pods have in hand, as estimated";
        let mut in_hand = describe(&mut encoder, "kembed_gateway_in_hand_tokens", help)?;
        for (lane, value) in [("interactive", interactive), ("bulk", bulk)] {
            gauge(value).encode(in_hand.encode_family(&[("lane", lane)])?)?;
        }
        let help = "Pods that are given nothing now, for how they failed";
        gauge(ejected).encode(describe(&mut encoder, "kembed_gateway_ejected_pods", help)?)
    }
}

fn describe<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}
