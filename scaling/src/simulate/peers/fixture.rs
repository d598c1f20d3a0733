//! Looks that tests show to peers.

use std::time::Duration;

use crate::{
    observation::{Load, Observation, Pods, Speed},
    simulate::contender::{Contender, Sight},
};

/// Shows one peer look after look, whose pods answer as soon as they are wanted.
pub(super) struct Show<C> {
    peer: C,
    now: f64,
    /// Pods that are wanted.
    pub(super) pods: u32,
}

impl<C: Contender> Show<C> {
    pub(super) fn new(peer: C, pods: u32) -> Self {
        let mut show = Self { peer, now: 0., pods };
        show.look(0., 0., 0., false);
        show
    }

    /// The time of a period passes in which so many requests were in flight, of which pods computed some.
    pub(super) fn pass(&mut self, in_flight: f64, busy: f64) -> u32 {
        self.look(self.peer.period(), in_flight, busy, false)
    }

    /// The same for a longer time.
    pub(super) fn pass_for(&mut self, seconds: f64, in_flight: f64, busy: f64) -> u32 {
        let looks = (seconds / self.peer.period()).round() as u32;
        (0..looks).for_each(|_| {
            self.pass(in_flight, busy);
        });
        self.pods
    }

    /// Somebody comes at zero, a second after the last look.
    pub(super) fn wake(&mut self) -> u32 {
        self.look(1., 0., 0., true)
    }

    fn look(&mut self, over: f64, in_flight: f64, busy: f64, is_wake: bool) -> u32 {
        self.now += over;
        let load = Load { over: Duration::from_secs_f64(over), waiting: in_flight, ..Load::default() };
        let seen = Observation {
            now: Duration::from_secs_f64(self.now),
            load: Some(load),
            pods: Pods { wanted: self.pods, ready: self.pods, ..Pods::default() },
            speed: Speed::default(),
        };
        let sight = Sight { seen: &seen, busy, waiting: in_flight as usize, in_hand: 0, is_wake };
        self.pods = self.peer.decide(&sight);
        self.pods
    }
}
