//! What will come, from what came after moments like this.

use super::history::{History, LEVEL};

/// Moments that are asked.
const ASKED: usize = 48;

/// Levels that differ by more than this part are not alike.
const UNLIKE: f64 = 0.25;

/// Fewer moments than this tell nothing.
const ENOUGH: usize = 120;

/// The shares of the cases in which less came than is told.
pub const SHARES: [f64; 3] = [0.5, 0.8, 0.95];

/// The moments of the last hour by their level.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    /// Seconds from when a pod is asked for until it serves, and for how long from then on it should be of use.
    window: (u64, u64),
    /// The moments whose future is known by now, the lowest level first.
    order: Vec<Moment>,
    /// The first whose future is not.
    next: u64,
}

/// A second, and what came after it.
#[derive(Clone, Copy, Debug)]
struct Moment {
    second: u32,
    /// The most that came when a pod asked for in it would have served.
    future: f32,
}

/// Seconds for which a pod that is asked for should be of use, once it is there.
pub fn width(lead: f64) -> f64 {
    lead.clamp(5., 30.)
}

/// Tokens a second, the most of them that come when a pod that is asked for now serves, by [`SHARES`].
pub type Futures = [f64; SHARES.len()];

impl Forecast {
    /// What came after the moments of the past hour that were most like this one; `lead` is what a pod takes to start, in
    /// seconds. `None` if too few are known. What came once is no reason to expect more than there is: it must have come after
    /// moments at two times, or be what `came_twice` knows to have come at two times so many seconds apart.
    pub fn futures(
        &mut self,
        history: &History,
        lead: f64,
        came_twice: impl Fn(f64, u64) -> bool,
    ) -> Option<Futures> {
        let lead = lead.clamp(0., 900.).round();
        self.follow(history, (lead as u64, width(lead) as u64));
        if self.order.len() < ENOUGH {
            return None;
        }
        let now = history.level(history.seconds().end.checked_sub(1)?);
        let nearest = self.nearest(history, now);
        // Nothing is known of what follows a level that never was.
        let middle = nearest[nearest.len() / 2].level(history);
        if (middle - now).abs() > UNLIKE * middle.max(now) {
            return None;
        }
        let mut futures = nearest.to_vec();
        futures.sort_unstable_by(|one, other| one.future.total_cmp(&other.future));
        let most = self.twice(&futures).max(now);
        let apart = self.apart();
        let least = |share: f64| futures[((futures.len() - 1) as f64 * share).round() as usize].future;
        let expected = |future: f64| if came_twice(future, apart) { future } else { future.min(most) };
        Some(SHARES.map(|share| expected(f64::from(least(share)))))
    }

    /// The most that came after moments at two times. The moments with the least future come first.
    fn twice(&self, futures: &[Moment]) -> f64 {
        let (mut first, mut last) = (u32::MAX, 0);
        let mut most = futures.iter().rev().skip_while(|moment| {
            (first, last) = (first.min(moment.second), last.max(moment.second));
            u64::from(last - first) <= self.apart()
        });
        most.next().map_or(0., |moment| f64::from(moment.future))
    }

    /// Seconds before a burst that all tell of that one.
    fn apart(&self) -> u64 {
        self.window.0 + self.window.1 + LEVEL
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.order.capacity() * size_of::<Moment>()
    }

    /// Takes in the seconds whose future has come, and drops those that are forgotten.
    fn follow(&mut self, history: &History, window: (u64, u64)) {
        let seconds = history.seconds();
        if window != self.window || self.next > seconds.end {
            *self = Self { window, order: Vec::new(), next: 0 };
        }
        let first = seconds.start + LEVEL - 1;
        if self.order.len() as u64 > self.next.saturating_sub(first) {
            self.order.retain(|moment| u64::from(moment.second) >= first);
        }
        self.next = self.next.max(first);
        while self.next + window.0 + window.1 < seconds.end {
            let at = history.level(self.next);
            let moment = Moment { second: self.next as u32, future: self.future(history, self.next) as f32 };
            let place = self.order.partition_point(|other| {
                let level = other.level(history);
                level < at || (level == at && other.shuffled() < moment.shuffled())
            });
            self.order.insert(place, moment);
            self.next += 1;
        }
    }

    fn nearest(&self, history: &History, now: f64) -> &[Moment] {
        let distance = |place: usize| (self.order[place].level(history) - now).abs();
        let (mut from, mut to) = {
            let place = self.order.partition_point(|moment| moment.level(history) < now);
            (place, place)
        };
        while to - from < ASKED.min(self.order.len()) {
            let lower = from > 0 && (to == self.order.len() || distance(from - 1) <= distance(to));
            if lower { from -= 1 } else { to += 1 }
        }
        &self.order[from..to]
    }

    /// The most that came after a second, when a pod asked for in it would have served.
    fn future(&self, history: &History, second: u64) -> f64 {
        let from = second + self.window.0;
        (from..=from + self.window.1).map(|second| history.level(second)).fold(0., f64::max)
    }
}

impl Moment {
    /// Orders those whose level is the same, as it is where nothing comes, by no order: if the last of them were asked first, they
    /// would all tell of the same time.
    fn shuffled(&self) -> u32 {
        self.second.wrapping_mul(2_654_435_761)
    }

    fn level(&self, history: &History) -> f64 {
        history.level(u64::from(self.second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing else is known.
    const ONCE: fn(f64, u64) -> bool = |_, _| false;

    fn after(seconds: impl Iterator<Item = f64>) -> History {
        let mut history = History::default();
        seconds.for_each(|tokens| history.add(1., tokens));
        history
    }

    #[test]
    fn too_little_is_known_of_a_young_service() {
        assert_eq!(Forecast::default().futures(&after((0..100).map(|_| 5.)), 2., ONCE), None);
        assert_eq!(Forecast::default().futures(&History::default(), 2., ONCE), None);
    }

    #[test]
    fn what_was_followed_by_much_is_expected_to_be_again() {
        // Each 100 s ten seconds of 50 announce twenty of 1000, 20 s later.
        let wave = |second: u32| match second % 100 {
            0..10 => 50.,
            25..50 => 1000.,
            _ => 10.,
        };
        let mut forecast = Forecast::default();
        let announced = after((0..1006).map(wave));
        assert_eq!(forecast.futures(&announced, 20., ONCE), Some([1000.; 3]));
        let over = after((0..1056).map(wave));
        assert!(forecast.futures(&over, 20., ONCE).is_some_and(|futures| futures[0] <= 50.));
    }

    /// A minute of 50 comes before it, and has come again.
    #[test]
    fn what_came_once_is_not_expected_again() {
        for (times, expected) in [(1, 50.), (2, 1000.)] {
            let wave = |second: u32| match second % 300 {
                0..60 => 50.,
                65..90 => 1000.,
                _ => 10.,
            };
            let announced = after((0..300 * times + 40).map(wave));
            let futures = Forecast::default().futures(&announced, 20., ONCE).expect("it knows the level");
            assert_eq!(futures[1..], [expected; 2], "{times}");
        }
    }

    #[test]
    fn it_knows_the_same_whether_it_followed_or_not() {
        let noise = |second: u64| ((second * 2_654_435_761) % 1000) as f64;
        let (mut history, mut followed) = (History::default(), Forecast::default());
        for second in 0..8000 {
            history.add(1., noise(second));
            let futures = followed.futures(&history, 7., ONCE);
            if second % 777 == 0 {
                assert_eq!(futures, Forecast::default().futures(&history, 7., ONCE), "{second}");
            }
        }
        assert!(followed.order.len() < 3600);
    }
}
