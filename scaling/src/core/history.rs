//! The work of the last hour, second by second.

use std::{collections::VecDeque, ops::Range};

/// Seconds over which the work is a level.
pub const LEVEL: u64 = 4;

/// Seconds that are remembered.
const LONGEST: usize = 3600;

/// Tokens that arrived in each second of the last hour that is known. 14 KB for a service that was active all that time, and
/// nothing for one that was not active at all.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The newest last. All but the last are full seconds.
    cells: VecDeque<f32>,
    /// Seconds of the last that have passed.
    begun: f64,
    /// Seconds since anything came.
    quiet: f64,
    /// Seconds that were ever added, less those that still are here.
    forgotten: u64,
}

impl History {
    /// So many tokens came in `over` seconds, evenly. Of a time that is longer than what is remembered the end is. Once nothing
    /// came in a whole hour it begins anew.
    pub fn add(&mut self, over: f64, tokens: f64) {
        if over <= 0. || (self.cells.is_empty() && tokens <= 0.) {
            return;
        }
        self.quiet = if tokens > 0. { 0. } else { self.quiet + over };
        if self.quiet >= LONGEST as f64 {
            *self = Self::default();
            return;
        }
        let each = tokens / over;
        let mut left = over.min(LONGEST as f64);
        while left > 1e-9 {
            if self.cells.is_empty() || self.begun >= 1. - 1e-9 {
                self.cells.push_back(0.);
                self.begun = 0.;
            }
            let part = left.min(1. - self.begun);
            if let Some(cell) = self.cells.back_mut() {
                *cell += (each * part) as f32;
            }
            self.begun += part;
            left -= part;
        }
        while self.cells.len() > LONGEST {
            self.cells.pop_front();
            self.forgotten += 1;
        }
    }

    /// The numbers of the seconds that have passed and are remembered, counted from the first that ever was.
    pub fn seconds(&self) -> Range<u64> {
        let whole = self.cells.len() - usize::from(!self.cells.is_empty() && self.begun < 1. - 1e-9);
        self.forgotten..self.forgotten + whole as u64
    }

    /// Tokens that came in that second: 0 if it is not remembered.
    pub fn at(&self, second: u64) -> f64 {
        let place = second.checked_sub(self.forgotten).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.cells.get(place)).map_or(0., |&tokens| f64::from(tokens))
    }

    /// Tokens a second at that time, over [`LEVEL`] seconds: one alone is too much of a chance.
    pub fn level(&self, second: u64) -> f64 {
        (0..LEVEL).map(|back| self.at(second.saturating_sub(back))).sum::<f64>() / LEVEL as f64
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(history: &History) -> Vec<f64> {
        history.seconds().map(|second| history.at(second)).collect()
    }

    #[test]
    fn looks_of_any_length_become_seconds() {
        let mut history = History::default();
        history.add(0.5, 10.);
        assert!(seconds(&history).is_empty());
        history.add(1.5, 30.);
        assert_eq!(seconds(&history), [20., 20.]);
        history.add(3., 3.);
        assert_eq!(seconds(&history), [20., 20., 1., 1., 1.]);
    }

    #[test]
    fn an_hour_is_remembered_and_a_service_that_never_was_active_takes_nothing() {
        let mut history = History::default();
        history.add(1e9, 0.);
        assert_eq!(history.bytes(), 0);
        for second in 1..=4000 {
            history.add(1., f64::from(second));
        }
        assert_eq!(history.seconds(), 400..4000);
        assert_eq!((history.at(399), history.at(400), history.at(4000)), (0., 401., 0.));
        history.add(1e9, 1e9);
        assert_eq!(history.seconds(), 4000..7600);
        assert_eq!(history.at(4000), 1.);
        assert!(history.bytes() <= 32 << 10, "{}", history.bytes());
        (0..3600).for_each(|_| history.add(1., 0.));
        assert_eq!((history.seconds(), history.bytes()), (0..0, 0));
    }
}
