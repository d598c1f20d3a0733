//! What others decide by: each formula from its source, at its defaults and over a grid of settings.
//!
//! All are drawn favourably. What they read as a mean of requests is told once a second, as it is to ours and to the first of
//! them, though the pipelines of metrics of others take 15 s and more; all else they read has no lag. What they read is the one
//! queue of the world, and requests that come while there is no pod are held for them.

#[cfg(test)]
mod fixture;
pub mod hpa;
pub mod keda;
pub mod kpa;
pub mod kubeai;
pub mod signal;

use std::fmt;

use crate::simulate::contender::Contender;

pub use signal::Signal;

/// A peer with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Peer {
    /// Knative's pod autoscaler.
    Kpa(kpa::KpaSettings),
    /// The Horizontal Pod Autoscaler on the share of time that pods are busy.
    HpaUtilisation(hpa::HpaSettings),
    /// The Horizontal Pod Autoscaler on requests.
    HpaQueue(hpa::HpaSettings),
    /// KEDA, which is an HPA that it switches off and on.
    Keda(keda::KedaSettings),
    /// KubeAI.
    KubeAi(kubeai::KubeAiSettings),
}

impl Peer {
    /// The names of all, as on the command line.
    pub const NAMES: [&'static str; 5] = ["kpa", "hpa-utilisation", "hpa-queue", "keda", "kubeai"];

    /// Each at its defaults.
    pub fn defaults() -> [Self; 5] {
        [
            Self::Kpa(kpa::KpaSettings::default()),
            Self::HpaUtilisation(hpa::HpaSettings::utilisation(0.8)),
            Self::HpaQueue(hpa::HpaSettings::queue(16.)),
            Self::Keda(keda::KedaSettings::default()),
            Self::KubeAi(kubeai::KubeAiSettings::default()),
        ]
    }

    /// Each at all settings of its grid, which its defaults are part of.
    pub fn grid() -> Vec<Self> {
        let mut grid = Vec::new();
        grid.extend(kpa::grid().into_iter().map(Self::Kpa));
        grid.extend(hpa::utilisation_grid().into_iter().map(Self::HpaUtilisation));
        grid.extend(hpa::queue_grid().into_iter().map(Self::HpaQueue));
        grid.extend(keda::grid().into_iter().map(Self::Keda));
        grid.extend(kubeai::grid().into_iter().map(Self::KubeAi));
        grid
    }

    /// Its name, without its settings.
    pub fn name(&self) -> &'static str {
        Self::NAMES[match self {
            Self::Kpa(_) => 0,
            Self::HpaUtilisation(_) => 1,
            Self::HpaQueue(_) => 2,
            Self::Keda(_) => 3,
            Self::KubeAi(_) => 4,
        }]
    }

    /// One that has seen nothing yet.
    pub fn contender(&self) -> Box<dyn Contender> {
        match *self {
            Self::Kpa(settings) => Box::new(kpa::Kpa::new(settings)),
            Self::HpaUtilisation(settings) | Self::HpaQueue(settings) => Box::new(hpa::Hpa::new(settings)),
            Self::Keda(settings) => Box::new(keda::Keda::new(settings)),
            Self::KubeAi(settings) => Box::new(kubeai::KubeAi::new(settings)),
        }
    }
}

/// Its settings.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kpa(settings) => settings.fmt(f),
            Self::HpaUtilisation(settings) | Self::HpaQueue(settings) => settings.fmt(f),
            Self::Keda(settings) => settings.fmt(f),
            Self::KubeAi(settings) => settings.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_every_default_and_nothing_twice() {
        let grid = Peer::grid();
        assert!(grid.len() >= 400, "{}", grid.len());
        for default in Peer::defaults() {
            assert_eq!(grid.iter().filter(|peer| **peer == default).count(), 1, "{default:?}");
        }
        let mut told: Vec<String> = grid.iter().map(|peer| format!("{} {peer}", peer.name())).collect();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), grid.len());
    }
}
