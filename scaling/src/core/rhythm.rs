//! Work that comes and goes by the clock.
//!
//! The past is cut into stretches in which about as much came all the time. Where the last of those that were like the present
//! one all lasted about as long, it is known when this one ends, and what comes then is what came then. Jobs that run every
//! five minutes are like this; bursts that know nothing of each other are not.

use std::collections::VecDeque;

use super::history::{History, LEVEL};

/// The part by which work must differ to be another stretch.
const UNLIKE: f64 = 0.5;

/// Standard errors of a level by which it must differ as well.
const ERRORS: f64 = 5.;

/// The part of the longest by which stretches that last as long as each other may differ.
const REGULAR: f64 = 0.15;

/// Of the stretches that are like this one so many are looked at, the latest.
const ASKED: usize = 4;

/// Fewer than this tell nothing.
const ENOUGH: usize = 2;

/// Stretches that are remembered.
const MOST: usize = 64;

/// Seconds after which a stretch is forgotten.
const FORGOTTEN: u64 = 3600;

/// Some time in which about as much came.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    /// Tokens a second, on average.
    level: f64,
    /// The second in which it began.
    from: u64,
    /// The first that is none of it, if it is over.
    to: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beat {
    /// Seconds until it may.
    pub within: f64,
    /// Tokens a second then.
    pub level: f64,
}

/// The stretches of the last hour, the present one last.
#[derive(Clone, Debug, Default)]
pub struct Rhythm {
    stretches: VecDeque<Stretch>,
    /// The first second that was not looked at.
    next: u64,
}

impl Rhythm {
    /// What comes next after that history, if that is known; `lump` is as for [`Recent::rate`](super::recent::Recent::rate).
    pub fn beat(&mut self, history: &History, lump: f64) -> Option<Beat> {
        self.follow(history, lump);
        let present = self.stretches.back()?;
        let before = self.stretches.iter().zip(self.stretches.iter().skip(1)).rev();
        // Of the first nobody knows how long it had lasted before it was watched.
        let alike =
            before.filter(|(one, _)| one.from > 0 && !is_another(one.level, present.level, lump)).take(ASKED);
        let (mut count, mut shortest, mut longest, mut level) = (0, u64::MAX, 0, 0_f64);
        for (one, then) in alike {
            count += 1;
            shortest = shortest.min(one.to - one.from);
            longest = longest.max(one.to - one.from);
            level = level.max(then.level);
        }
        let lasted = self.next - present.from;
        let is_regular = (longest - shortest.min(longest)) as f64 <= REGULAR * longest as f64;
        if count < ENOUGH || !is_regular || lasted as f64 > (1. + REGULAR) * longest as f64 {
            return None;
        }
        Some(Beat { within: shortest.saturating_sub(lasted) as f64, level })
    }

    /// Whether about so many tokens a second came in two stretches, so many seconds apart.
    pub fn came_twice(&self, level: f64, apart: u64) -> bool {
        let mut alike = self.stretches.iter().filter(|one| !is_unlike(one.level, level));
        let first = alike.next();
        alike.next_back().zip(first).is_some_and(|(last, first)| last.from >= first.to + apart)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.stretches.capacity() * size_of::<Stretch>()
    }

    fn follow(&mut self, history: &History, lump: f64) {
        let seconds = history.seconds();
        if self.next > seconds.end {
            *self = Self::default();
        }
        for second in self.next.max(seconds.start)..seconds.end {
            self.pass(second, history.level(second), lump);
        }
        self.next = seconds.end;
        let is_forgotten = |one: &Stretch| one.to > 0 && one.to + FORGOTTEN < seconds.end;
        while self.stretches.len() > MOST || self.stretches.front().is_some_and(is_forgotten) {
            self.stretches.pop_front();
        }
    }

    fn pass(&mut self, second: u64, level: f64, lump: f64) {
        let begins = Stretch { level, from: second, to: 0 };
        let Some(present) = self.stretches.back_mut() else {
            self.stretches.push_back(begins);
            return;
        };
        let lasted = second - present.from;
        if lasted <= LEVEL {
            // What it is like is not known before all of the level is of it.
            present.level = level;
            return;
        }
        if is_another(level, present.level, lump) {
            present.to = second;
            self.stretches.push_back(begins);
        } else {
            present.level += (level - present.level) / (lasted - LEVEL + 1) as f64;
        }
    }
}

/// Whether it is unlike by more than chance: hardly anything is like nothing.
fn is_another(one: f64, other: f64, lump: f64) -> bool {
    let error = (lump * one.max(other) / LEVEL as f64).sqrt();
    is_unlike(one, other) && (one - other).abs() > ERRORS * error
}

fn is_unlike(one: f64, other: f64) -> bool {
    (one - other).abs() > UNLIKE * one.max(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known after so many seconds.
    fn after(seconds: u32, work: impl Fn(u32) -> f64) -> Option<Beat> {
        let (mut history, mut rhythm) = (History::default(), Rhythm::default());
        for second in 0..seconds {
            history.add(1., work(second));
            rhythm.beat(&history, 1.);
        }
        let known = rhythm.beat(&history, 1.);
        assert_eq!(known, Rhythm::default().beat(&history, 1.), "whether it followed or not");
        known
    }

    fn job(second: u32) -> f64 {
        if second % 300 < 120 { 1000. } else { 10. }
    }

    #[test]
    fn what_came_every_five_minutes_is_known_to_come_again() {
        assert_eq!(after(700, job), None, "once is no rhythm");
        let beat = after(1030, job).expect("a rhythm");
        assert!((beat.within - 170.).abs() <= 4. && (990. ..=1000.).contains(&beat.level), "{beat:?}");
        let near = after(1190, job).expect("a rhythm");
        assert!(near.within <= 14., "{near:?}");
    }

    /// What is told with the second after it leaves a little of the work in the pause, of one time more than of another.
    #[test]
    fn pauses_with_hardly_anything_in_them_are_like_each_other() {
        let work = |second: u32| match (second % 300 < 120, second / 300) {
            (true, _) => 1000.,
            (false, time) => 0.3 * f64::from(time % 3),
        };
        let beat = after(1030, work).expect("a rhythm");
        assert!((beat.within - 170.).abs() <= 5. && beat.level > 900., "{beat:?}");
    }

    #[test]
    fn what_does_not_come_when_it_should_is_waited_for_no_longer() {
        let stops = |second| if second < 1200 { job(second) } else { 10. };
        assert_eq!(after(1205, stops).map(|beat| beat.within), Some(0.));
        assert_eq!(after(1260, stops), None);
    }

    #[test]
    fn what_came_in_two_stretches_is_known_to() {
        let came = |seconds, level, apart| {
            let (mut history, mut rhythm) = (History::default(), Rhythm::default());
            for second in 0..seconds {
                history.add(1., job(second));
                rhythm.beat(&history, 1.);
            }
            rhythm.came_twice(level, apart)
        };
        assert!(!came(290, 1000., 100), "once");
        assert!(came(430, 1000., 100));
        assert!(!came(430, 1000., 200), "they are closer to each other");
        assert!(!came(430, 3000., 100) && !came(430, 200., 100), "as much never came");
    }

    #[test]
    fn neither_what_is_steady_nor_what_comes_at_random_has_a_rhythm() {
        assert_eq!(after(3000, |_| 1000.), None);
        let at_random = |second: u32| match second {
            100..120 | 160..190 | 390..400 | 460..500 | 700..710 => 1000.,
            _ => 10.,
        };
        assert_eq!(after(760, at_random), None);
    }
}
