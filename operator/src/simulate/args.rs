//! What is asked for.

use std::{path::PathBuf, time::Duration};

use kembed_crds::InvalidDuration;
use kembed_scaling::simulate::{Gateways, Kind, PodModel, World, fleet::Nodes, peers::Peer};

use crate::simulate::service::Service;

/// Our own policy.
pub const OURS: &str = "kembed";

/// The schedule that knows the future.
pub const CLAIRVOYANT: &str = "clairvoyant";

/// Flags of `operator simulate`.
#[derive(clap::Args, Clone, Debug)]
pub struct SimulateArgs {
    /// Traffic to replay: a CSV file with lines `TIMESTAMP,ContextTokens,GeneratedTokens` or `seconds,tokens`, or an hour of a kind
    /// that is made: steady, step, spike, ramp, onoff, diurnal, bursty, sparse. May be given more than once
    #[arg(long, required = true, value_name = "FILE.csv|KIND")]
    pub(super) trace: Vec<Source>,

    /// The EmbeddingService whose spec.scaling is to be tried
    #[arg(long, value_name = "FILE.yaml")]
    pub(super) service: PathBuf,

    /// From when a pod is asked for, and has a node, until it answers
    #[arg(long, default_value = "2s", value_parser = duration)]
    startup: Duration,

    /// From when a pod finds no place until a new node takes it. Without it there is always place
    #[arg(long, value_parser = duration)]
    node_lead: Option<Duration>,

    /// Pods that have place on a node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pods_per_node: u32,

    /// How long a node is kept that has no pod
    #[arg(long, default_value = "1m", value_parser = duration)]
    node_idle: Duration,

    /// Tokens a second that a pod computes when it always has enough to do: of a busy pod, kembed_tokens_total by
    /// kembed_run_seconds_sum. 47,670 unless told
    #[arg(long, value_name = "TOKENS")]
    pod_rate: Option<f64>,

    /// Gateways of the installation: each tells once a second what came, and what is known of a moment is what all have told
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    gateways: u32,

    /// Times as many clients: requests are cloned, not squeezed together
    #[arg(long, default_value_t = 1.)]
    pub(super) rate: f64,

    /// Times as long requests
    #[arg(long, default_value_t = 1.)]
    pub(super) length: f64,

    /// Who is to play, all unless told: kembed, kpa, hpa-utilisation, hpa-queue, keda, kubeai, clairvoyant
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = policy)]
    policy: Vec<&'static str>,

    /// Leave out the best of some hundred settings of each peer
    #[arg(long)]
    no_tuning: bool,

    /// Names the random numbers of made traffic, of clones, and of the moments at which gateways tell and pods are counted
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,

    /// Folder for a picture of each trace
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
}

/// Where traffic comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It is made.
    Kind(Kind),
    /// It was recorded.
    File(PathBuf),
}

impl std::str::FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Kind::named(text).map_or_else(|| Self::File(text.into()), Self::Kind))
    }
}

/// A pod that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("--pod-rate must be above 0 and below {most:.0}, the rate of a pod that needs no time for a token")]
pub(super) struct ImpossibleRate {
    most: f64,
}

/// Who plays.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contenders {
    pub(super) ours: bool,
    /// Ours is to show what other percentiles would give, for the picture.
    pub(super) tries_shares: bool,
    pub(super) clairvoyant: bool,
    /// Each with whether these are its defaults.
    pub(super) peers: Vec<(Peer, bool)>,
}

impl SimulateArgs {
    /// The world that is asked for.
    pub(super) fn world(&self, service: &Service) -> Result<World, ImpossibleRate> {
        let node = |lead: Duration| Nodes {
            lead: lead.as_secs_f64(),
            pods: self.pods_per_node,
            idle: self.node_idle.as_secs_f64(),
        };
        let world = World::of(&service.settings, self.startup);
        let pod = self.pod_rate.map_or(Ok(world.pod), |rate| pod(world.pod, rate))?;
        let gateways = Some(Gateways { count: self.gateways, seed: self.seed });
        let (nodes, target) = (self.node_lead.map(node), service.target.as_secs_f64());
        Ok(World { nodes, pod, target, gateways, ..world })
    }

    /// Who is asked to play.
    pub(super) fn contenders(&self) -> Contenders {
        let plays = |name: &str| self.policy.is_empty() || self.policy.contains(&name);
        let defaults = Peer::defaults();
        let all = if self.no_tuning { defaults.to_vec() } else { Peer::grid() };
        let peers = all.into_iter().filter(|peer| plays(peer.name()));
        Contenders {
            ours: plays(OURS),
            tries_shares: plays(OURS) && self.out.is_some(),
            clairvoyant: plays(CLAIRVOYANT),
            peers: peers.map(|peer| (peer, defaults.contains(&peer))).collect(),
        }
    }
}

/// A pod of that rate, which takes as long for a batch of nothing.
fn pod(pod: PodModel, rate: f64) -> Result<PodModel, ImpossibleRate> {
    let batch = f64::from(pod.batch_tokens);
    let token_seconds = 1. / rate - pod.batch_seconds / batch;
    let is_possible = rate > 0. && token_seconds > 0.;
    let possible = is_possible.then_some(PodModel { token_seconds, ..pod });
    possible.ok_or(ImpossibleRate { most: batch / pod.batch_seconds })
}

fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    kembed_crds::Duration::new(text).parse()
}

fn policy(text: &str) -> Result<&'static str, String> {
    let names = || [OURS].into_iter().chain(Peer::NAMES).chain([CLAIRVOYANT]);
    let unknown =
        || format!("there is no such policy: choose from {}", names().collect::<Vec<_>>().join(", "));
    names().find(|name| *name == text).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_the_rate_that_it_is_given() {
        let pod = |rate| pod(PodModel::default(), rate);
        assert!((pod(5000.).expect("a slow pod").rate() - 5000.).abs() < 1e-6);
        for rate in [0., -1., 1_024_000., f64::NAN, f64::INFINITY] {
            assert!(pod(rate).is_err(), "{rate}");
        }
    }

    #[test]
    fn names_of_kinds_are_no_files() {
        assert_eq!("onoff".parse(), Ok(Source::Kind(Kind::OnOff)));
        assert_eq!("./onoff".parse(), Ok(Source::File("./onoff".into())));
    }

    #[test]
    fn policies_have_names() {
        assert_eq!(policy("kubeai"), Ok("kubeai"));
        assert!(policy("KubeAI").expect_err("no such").contains("hpa-queue, keda, kubeai, clairvoyant"));
    }
}
