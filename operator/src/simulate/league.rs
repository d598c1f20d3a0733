//! Everybody plays one trace.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use kembed_scaling::{
    Objective, Scaler, Settings,
    simulate::{Ours, Score, Timeline, Trace, Watch, World, clairvoyant, peers::Peer},
};

use crate::simulate::{
    args::{CLAIRVOYANT, Contenders, OURS},
    progress::Progress,
};

/// What it costs to miss all requests, in the replica-seconds of whoever knows the future.
pub(super) const WEIGHT: f64 = 8.;

/// Percentiles that ours also keeps, each another balance of replicas and misses.
const SHARES: [f64; 5] = [0.5, 0.8, 0.9, 0.95, 0.99];

/// Moments that a play is cut into for the picture.
const MOMENTS: usize = 360;

/// How one trace was played by all.
#[derive(Clone, Debug)]
pub(super) struct League {
    /// The name of the trace.
    pub(super) name: String,
    /// Its length in seconds.
    pub(super) seconds: f64,
    /// Those of the table: ours, each peer at its defaults and at its best, and whoever knows the future.
    pub(super) standings: Vec<Standing>,
    /// All that was played.
    pub(super) tried: Vec<Standing>,
    /// Replica-seconds of whoever knows the future.
    pub(super) unit: f64,
    /// What happened when to ours and to the best peer, or to whichever of them played.
    pub(super) timelines: Vec<(Standing, Timeline)>,
}

/// One policy with one of its settings, and how it went.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Who.
    pub(super) player: Player,
    /// It is the best of many settings for this trace, found with hindsight.
    pub(super) tuned: bool,
    /// How it went.
    pub(super) score: Score,
}

/// One who is to play.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Player {
    /// Our policy.
    Ours,
    /// Our policy, if the service asked for another percentile.
    OursAt(f64),
    /// Whoever knows the future.
    Clairvoyant,
    /// A peer, and whether these are its defaults.
    Peer(Peer, bool),
}

impl Player {
    /// The name of the policy.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ours | Self::OursAt(_) => OURS,
            Self::Clairvoyant => CLAIRVOYANT,
            Self::Peer(peer, _) => peer.name(),
        }
    }

    /// Its settings, where it has some.
    pub(super) fn settings(&self) -> String {
        if let Self::Peer(peer, _) = self { peer.to_string() } else { String::new() }
    }

    fn play(&self, trace: &Trace, world: &World, settings: &Settings, watch: &mut dyn Watch) -> Score {
        match self {
            Self::Ours => world.play(trace, &mut Ours(Scaler::new(*settings)), watch),
            Self::OursAt(share) => {
                let objective = settings.objective.map(|objective| Objective { share: *share, ..objective });
                world.play(trace, &mut Ours(Scaler::new(Settings { objective, ..*settings })), watch)
            }
            Self::Clairvoyant => clairvoyant::play(world, trace),
            Self::Peer(peer, _) => world.play(trace, &mut *peer.contender(), watch),
        }
    }
}

impl League {
    /// Plays the trace to all, on all cores.
    pub(super) fn play(
        name: String,
        trace: &Trace,
        world: &World,
        settings: &Settings,
        contenders: &Contenders,
        progress: &Progress,
    ) -> Self {
        let peers = contenders.peers.iter().map(|&(peer, is_default)| Player::Peer(peer, is_default));
        // Whoever knows the future plays in any case: all costs are told in what it needs.
        let players = contenders.ours.then_some(Player::Ours).into_iter().chain([Player::Clairvoyant]);
        let shares = SHARES.map(Player::OursAt).into_iter().filter(|_| contenders.tries_shares);
        let players: Vec<Player> = players.chain(shares).chain(peers).collect();
        let play = |player: &Player| {
            let score = player.play(trace, world, settings, &mut ());
            progress.step(players.len());
            Standing { player: *player, tuned: false, score }
        };
        let mut tried = on_all_cores(&players, play);
        let is_clairvoyant = |standing: &Standing| standing.player == Player::Clairvoyant;
        let unit = tried.iter().find(|standing| is_clairvoyant(standing)).expect("it always plays");
        let unit = unit.score.replica_seconds;
        if !contenders.clairvoyant {
            tried.retain(|standing| !is_clairvoyant(standing));
        }
        let mut league = Self {
            name,
            seconds: trace.seconds(),
            standings: Vec::new(),
            tried,
            unit,
            timelines: Vec::new(),
        };
        league.standings = league.chosen();
        // These are played once more and watched, for to watch all would take gigabytes.
        league.timelines = league
            .shown()
            .map(|standing| {
                let mut timeline = Timeline::new(trace, MOMENTS);
                standing.player.play(trace, world, settings, &mut timeline);
                (standing.clone(), timeline)
            })
            .collect();
        league
    }

    /// The cost of a score.
    pub(super) fn cost(&self, score: &Score) -> f64 {
        score.cost(self.unit, WEIGHT)
    }

    /// Of all that was played what is told of.
    fn chosen(&self) -> Vec<Standing> {
        let of =
            |name: &'static str| self.tried.iter().filter(move |standing| standing.player.name() == name);
        let is_ours = |standing: &&Standing| standing.player == Player::Ours;
        let mut chosen: Vec<Standing> = of(OURS).filter(is_ours).cloned().collect();
        for name in Peer::NAMES {
            let is_default = |standing: &&Standing| matches!(standing.player, Player::Peer(_, true));
            chosen.extend(of(name).find(is_default).cloned());
            let best = of(name).min_by(|a, b| self.cost(&a.score).total_cmp(&self.cost(&b.score)));
            let best = best.filter(|_| of(name).count() > 1);
            chosen.extend(best.map(|best| Standing { tuned: true, ..best.clone() }));
        }
        chosen.extend(of(CLAIRVOYANT).cloned());
        chosen
    }

    /// Whose replicas and latencies are drawn: ours, and the peer that is best at what is told of it.
    fn shown(&self) -> impl Iterator<Item = &Standing> {
        let ours = self.standings.iter().find(|standing| standing.player == Player::Ours);
        let peers = self.standings.iter().filter(|standing| matches!(standing.player, Player::Peer(..)));
        let best = peers.min_by(|a, b| self.cost(&a.score).total_cmp(&self.cost(&b.score)));
        ours.into_iter().chain(best)
    }
}

/// What comes of each item, in order.
fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let take = || {
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            let result = work(item);
            done.lock().expect("nobody panics while holding it").push((index, result));
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from).min(items.len());
        (0..cores).for_each(|_| {
            scope.spawn(take);
        });
    });
    let mut done = done.into_inner().expect("nobody panics while holding it");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_of_items_is_in_their_order() {
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(
            on_all_cores(&items, |item| item * 2),
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        assert_eq!(on_all_cores(&[] as &[usize], |item| *item), [] as [usize; 0]);
    }
}
