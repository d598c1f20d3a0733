//! What arrived in the last half minute.

use std::collections::VecDeque;

/// Seconds of the windows from which a rise is seen, the shorter the sooner.
const WINDOWS: [f64; 5] = [1., 2., 4., 8., 16.];

/// Seconds of the window that is believed as it is.
pub const LONGEST: f64 = 30.;

/// Standard errors that are taken off what a short window shows: steady traffic shows less than that in all of them.
const ERRORS: f64 = 4.;

/// What came on top within the last look is taken for so many times what it is: what began in it did so in its middle, in the mean.
const BEGUN: f64 = 2.;

/// Seconds of a look at most of which it is known that what began in it goes on.
const WATCHED: f64 = 3.;

/// Looks that are closer to each other than this many seconds are drawn together, which bounds how many there are.
const SHORTEST: f64 = 0.25;

/// The tokens of the last half minute, by look.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// The newest last.
    pieces: VecDeque<Piece>,
    /// Seconds in all of them.
    known: f64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    over: f64,
    requests: f64,
    tokens: f64,
}

/// Tokens a second that arrive, and how far off that may be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// What there is to serve, as far as that is sure.
    pub present: f64,
    /// The same if what the last look shows to have come on top, for certain and for the first time, went on as it began.
    pub soon: f64,
    /// What there may be: of the window that shows most for certain, what it shows and a standard error.
    pub likely: f64,
    /// The mean of the longest window that is full.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
}

impl Recent {
    /// So many requests came in the `over` seconds since the last call, with so many tokens.
    pub fn add(&mut self, over: f64, requests: f64, tokens: f64) {
        match self.pieces.back_mut() {
            _ if over <= 0. => return,
            Some(last) if last.over < SHORTEST => {
                last.over += over;
                last.requests += requests;
                last.tokens += tokens;
            }
            _ => self.pieces.push_back(Piece { over, requests, tokens }),
        }
        self.known += over;
        while let Some(first) = self.pieces.front().filter(|first| self.known - first.over >= LONGEST) {
            self.known -= first.over;
            self.pieces.pop_front();
        }
    }

    /// Requests that came in the longest window.
    pub fn came(&self) -> f64 {
        let mut left = LONGEST;
        let parts = self.pieces.iter().rev().map(|piece| {
            let part = (left / piece.over).clamp(0., 1.);
            left -= piece.over;
            part * piece.requests
        });
        parts.sum()
    }

    /// The rate, if requests have `lump` tokens as they are counted by [`Sizes::lump`](super::sizes::Sizes::lump): of traffic
    /// without memory, the variance of the tokens that come in a time is the lump times their number.
    pub fn rate(&self, lump: f64) -> Rate {
        let mut rate = Rate::default();
        let mut windows = WINDOWS.iter().chain([&LONGEST]).peekable();
        let (mut over, mut tokens) = (0., 0.);
        for piece in self.pieces.iter().rev() {
            while let Some(&&window) = windows.peek().filter(|&&&window| window <= over + piece.over + 1e-6) {
                let part = ((window - over) / piece.over).clamp(0., 1.);
                let mean = (tokens + part * piece.tokens) / window;
                let error = (lump * mean / window).sqrt();
                let sure = if window == LONGEST { mean } else { mean - ERRORS * error };
                if sure > rate.present {
                    (rate.present, rate.likely) = (sure, mean + error);
                }
                (rate.mean, rate.error) = (mean, error);
                windows.next();
            }
            over += piece.over;
            tokens += piece.tokens;
        }
        rate.soon = rate.present.max(self.begun(lump));
        rate
    }

    /// The rate that began within the last look, if one did. 0 if not, or if an earlier look shows it already.
    fn begun(&self, lump: f64) -> f64 {
        let mut last = self.pieces.iter().rev().filter(|piece| piece.over > SHORTEST);
        let (Some(now), Some(before)) = (last.next(), last.next()) else { return 0. };
        let (now, before, over) = (now.tokens / now.over, before.tokens / before.over, now.over);
        let error = (lump * now / over).sqrt();
        let on_top = now - ERRORS * error - before;
        if on_top > error && over < WATCHED { before + BEGUN * on_top } else { 0. }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: &[f64]) -> Recent {
        let mut recent = Recent::default();
        seconds.iter().for_each(|&tokens| recent.add(1., tokens / 10., tokens));
        recent
    }

    #[test]
    fn steady_work_is_its_mean() {
        let rate = after(&[100.; 60]).rate(10.);
        assert_eq!((rate.present, rate.mean), (100., 100.));
        assert_eq!(after(&[100.; 60]).came(), 300.);
        assert_eq!(after(&[100.; 2]).came(), 20.);
        assert!((rate.error - (10_f64 * 100. / 30.).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_rise_is_seen_as_soon_as_it_is_no_chance() {
        let mut seconds = [100.; 40];
        seconds[39] = 1000.;
        assert!((after(&seconds).rate(10.).present - 600.).abs() < 1e-9);
        let rate = after(&seconds).rate(10.);
        assert!((rate.likely - 1100.).abs() < 1e-9, "whoever is there may be needed: {rate:?}");
        // One large request is none.
        assert!((after(&seconds).rate(1000.).present - 130.).abs() < 1e-9);
    }

    #[test]
    fn what_began_within_a_look_began_in_its_middle() {
        let mut seconds = [100.; 40];
        seconds[38..].copy_from_slice(&[550., 1000.]);
        // 550 less four errors of 74 are 253: a hundred and twice 153.
        let soon = |upto: usize| after(&seconds[..upto]).rate(10.).soon;
        assert!((soon(39) - 406.).abs() < 1., "{}", soon(39));
        assert_eq!(soon(38), 100., "nothing began");
        let rate = after(&[&seconds[..], &[1000.]].concat()).rate(10.);
        assert_eq!(rate.soon, rate.present, "it is seen as it is");
        let chance = after(&[&[100.; 40][..], &[150.]].concat()).rate(10.);
        assert_eq!(chance.soon, chance.present, "it is no more than chance");
        let mut stopped = after(&[100.; 40]);
        stopped.add(10., 1000., 10_000.);
        let rate = stopped.rate(10.);
        assert_eq!(rate.soon, rate.present, "it may long be over");
    }

    #[test]
    fn a_window_that_is_not_full_says_nothing() {
        assert_eq!(after(&[]).rate(1.), Rate::default());
        let mut recent = Recent::default();
        recent.add(0.5, 1., 1000.);
        assert_eq!(recent.rate(1.), Rate::default());
        recent.add(0.5, 0., 0.);
        assert_eq!(recent.rate(0.).present, 1000.);
    }

    /// A leader that was stopped for a minute hears then what came in it.
    #[test]
    fn what_is_heard_late_is_no_burst() {
        let mut recent = after(&[100.; 40]);
        recent.add(60., 600., 6000.);
        assert!((recent.rate(10.).present - 100.).abs() < 1e-6);
        assert!((recent.came() - 300.).abs() < 1e-6);
    }

    #[test]
    fn looks_of_any_length_keep_it_small() {
        let mut recent = Recent::default();
        for look in 0..100_000 {
            recent.add(f64::from(look % 7) * 0.003, 1., 1.);
        }
        assert!(recent.pieces.len() < 140, "{}", recent.pieces.len());
        recent.add(1e9, 1., 1.);
        assert_eq!(recent.pieces.len(), 1);
    }
}
