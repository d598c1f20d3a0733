//! What a peer reads.

use std::collections::VecDeque;

use crate::simulate::contender::Sight;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Requests that wait, as they are at the moment of the look.
    WaitingNow,
    /// Requests that wait: the mean since the look before.
    Waiting,
    /// Requests that wait or that pods have in hand, at the moment of the look.
    ConcurrencyNow,
    /// Requests that wait or that pods have in hand: the mean since the look before.
    Concurrency,
    /// Pods that compute: the mean since the look before.
    Busy,
}

impl Signal {
    /// Its value.
    pub fn read(self, sight: &Sight<'_>) -> f64 {
        let load = sight.seen.load.as_ref();
        let (waiting, in_hand) = load.map_or((0., 0.), |load| (load.waiting, load.in_hand));
        match self {
            Self::WaitingNow => sight.waiting as f64,
            Self::Waiting => waiting,
            Self::ConcurrencyNow => (sight.waiting + sight.in_hand) as f64,
            Self::Concurrency => waiting + in_hand,
            Self::Busy => sight.busy,
        }
    }

    /// How it is called where settings are printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::WaitingNow => "waiting now",
            Self::Waiting => "waiting",
            Self::ConcurrencyNow => "in flight now",
            Self::Concurrency => "in flight",
            Self::Busy => "busy",
        }
    }
}

/// Values of the last so many seconds, and how long each held.
#[derive(Clone, Debug)]
pub(super) struct Window {
    seconds: f64,
    values: VecDeque<(f64, f64)>,
    held: f64,
    sum: f64,
}

impl Window {
    pub(super) fn new(seconds: f64) -> Self {
        Self { seconds, values: VecDeque::new(), held: 0., sum: 0. }
    }

    /// A value that held so long until now.
    pub(super) fn push(&mut self, value: f64, held: f64) {
        self.values.push_back((value, held));
        self.held += held;
        self.sum += value * held;
        while let Some(&(value, held)) = self.values.front()
            && self.held - held >= self.seconds - 1e-6
        {
            self.values.pop_front();
            self.held -= held;
            self.sum -= value * held;
        }
    }

    /// Their mean over as much of the window as has been seen; 0 at first.
    pub(super) fn mean(&self) -> f64 {
        if self.held > 0. { (self.sum / self.held).max(0.) } else { 0. }
    }
}

/// The extreme of what was wanted in the last so many seconds.
#[derive(Clone, Debug)]
pub(super) struct Stabiliser {
    seconds: f64,
    wanted: VecDeque<(f64, u32)>,
}

impl Stabiliser {
    pub(super) fn new(seconds: f64) -> Self {
        Self { seconds, wanted: VecDeque::new() }
    }

    /// The most that was wanted within the window, which `wanted` is part of now.
    pub(super) fn most(&mut self, now: f64, wanted: u32) -> u32 {
        // Who wanted less before can never be the most again.
        while self.wanted.back().is_some_and(|&(_, before)| before <= wanted) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now, wanted));
        while self.wanted.front().is_some_and(|&(at, _)| at < now - self.seconds - 1e-6) {
            self.wanted.pop_front();
        }
        self.wanted.front().map_or(wanted, |&(_, most)| most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets() {
        let mut window = Window::new(4.);
        assert_eq!(window.mean(), 0.);
        [8., 8., 2., 2.].into_iter().for_each(|value| window.push(value, 2.));
        assert_eq!(window.mean(), 2.);
        window.push(5., 1.);
        assert_eq!(window.mean(), 2.6);
    }

    #[test]
    fn the_most_holds_for_its_time() {
        let mut stabiliser = Stabiliser::new(30.);
        let most: Vec<u32> = [3, 9, 1, 2, 1]
            .into_iter()
            .enumerate()
            .map(|(i, w)| stabiliser.most(i as f64 * 15., w))
            .collect();
        assert_eq!(most, [3, 9, 9, 9, 2]);
    }
}
