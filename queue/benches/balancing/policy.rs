//! How the others choose a pod: at once, by what one gateway knows.

use crate::random::Random;

/// Who chooses, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The one after the last.
    RoundRobin,
    /// Any.
    Random,
    /// The one to which this gateway has fewest requests under way.
    LeastConnections,
    /// Of any two the one to which this gateway has fewer under way.
    TwoChoices,
    /// Ours: requests wait at the service's one owner until a pod has credit.
    Credit,
}

/// One gateway of the others.
#[derive(Clone, Debug)]
pub struct Chooser {
    turn: usize,
    /// Requests under way, by pod.
    under_way: Vec<usize>,
}

impl Chooser {
    /// Gateways do not begin at the same pod.
    pub fn new(gateway: usize) -> Self {
        Self { turn: gateway, under_way: Vec::new() }
    }

    /// Chooses among pods `0..pods`.
    pub fn choose(&mut self, policy: Policy, pods: usize, random: &mut Random) -> usize {
        self.under_way.resize(pods, 0);
        self.turn += 1;
        let fewest = |pods: &mut dyn Iterator<Item = usize>| {
            pods.min_by_key(|&pod| self.under_way[pod]).expect("there are pods")
        };
        let turn = self.turn;
        let pod = match policy {
            Policy::RoundRobin => turn % pods,
            Policy::Random => random.below(pods),
            Policy::LeastConnections => fewest(&mut (0..pods).map(|pod| (pod + turn) % pods)),
            Policy::TwoChoices => {
                let first = random.below(pods);
                let second = (first + 1 + random.below((pods - 1).max(1))) % pods;
                fewest(&mut [first, second].into_iter())
            }
            Policy::Credit => unreachable!("the dispatcher chooses"),
        };
        self.under_way[pod] += 1;
        pod
    }

    /// A request is answered.
    pub fn answered(&mut self, pod: usize) {
        self.under_way[pod] -= 1;
    }
}
