//! What is known of the requests: what gateways have told of them.
//!
//! Each gateway tells once a second what it counted, at moments of its own, and at once when somebody begins to wait at zero; who
//! decides looks at other moments. So what is seen is of a while ago, with two gateways two thirds of a second in the mean. All
//! requests of a service are with one gateway, its owner, but what happened is known only as far as all have told.

use std::collections::VecDeque;

use crate::{observation::Load, simulate::random::Random};

/// Seconds from one word of a gateway to its next.
const PERIOD: f64 = 1.;

/// Those who tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// How many there are, one at least.
    pub count: u32,
    /// Names the moments at which each tells, and those of the looks.
    pub seed: u64,
}

/// As many as an installation has unless told otherwise.
impl Default for Gateways {
    fn default() -> Self {
        Self { count: 2, seed: 1 }
    }
}

/// What was counted in a stretch of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stretch {
    /// Its length.
    pub(crate) seconds: f64,
    /// What came and what was answered.
    pub(crate) load: Load,
    /// Requests that waited, times seconds.
    pub(crate) waiting: f64,
    /// Requests that pods had in hand, times seconds.
    pub(crate) in_hand: f64,
}

/// What is there at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level {
    pub(crate) requests: f64,
    pub(crate) waiting_tokens: f64,
    pub(crate) in_hand_tokens: f64,
    /// Somebody waits though there is no pod.
    pub(crate) wanted: bool,
}

/// What was told, and when more will be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// When each gateway speaks within a period, the owner first; none if all is seen as it is.
    phases: Vec<f64>,
    /// The part of its period after which who decides looks.
    pub(crate) look: f64,
    /// The owner's regular words.
    words: u64,
    /// The owner's last word.
    heard: f64,
    level: Level,
    /// What the owner has told and the others have not reached yet.
    untold: VecDeque<Stretch>,
    /// Until then all was told and looked at.
    until: f64,
}

impl Told {
    /// By these gateways, or with nobody between what happens and who looks.
    pub(crate) fn by(gateways: Option<Gateways>) -> Self {
        let Some(Gateways { count, seed }) = gateways else { return Self::default() };
        let mut random = Random::new(seed);
        let look = random.unit();
        Self { phases: (0..count.max(1)).map(|_| PERIOD * random.unit()).collect(), look, ..Self::default() }
    }

    /// Whether who looks sees what is.
    pub(crate) fn is_at_once(&self) -> bool {
        self.phases.is_empty()
    }

    /// When the owner speaks next.
    pub(crate) fn next(&self) -> f64 {
        self.phases.first().map_or(f64::INFINITY, |phase| phase + self.words as f64 * PERIOD)
    }

    /// The owner speaks: this happened since its last word, and that is there.
    pub(crate) fn hear(&mut self, now: f64, happened: Stretch, level: Level) {
        self.words += u64::from(now == self.next());
        (self.heard, self.level) = (now, level);
        self.untold.push_back(happened);
    }

    /// What happened since the look before as far as all have told it, and what was there by the owner's last word. Of a stretch
    /// that goes on after that, the part that its time has.
    pub(crate) fn look(&mut self, now: f64) -> (Stretch, Level) {
        let others =
            self.phases.iter().skip(1).map(|phase| phase + ((now - phase) / PERIOD).floor() * PERIOD);
        let to = others.fold(self.heard, f64::min).max(self.until);
        let mut seen = Stretch::default();
        let mut left = to - self.until;
        while let Some(first) = self.untold.front_mut().filter(|first| left > 0. || first.seconds == 0.) {
            // What is left of it by rounding is none.
            if first.seconds <= left + 1e-9 {
                left = (left - first.seconds).max(0.);
                seen.add(first);
                self.untold.pop_front();
            } else {
                seen.add(&first.take(left));
                left = 0.;
            }
        }
        self.until = to;
        (seen, self.level)
    }
}

impl Stretch {
    fn add(&mut self, next: &Self) {
        let (load, other) = (&mut self.load, &next.load);
        self.seconds += next.seconds;
        self.waiting += next.waiting;
        self.in_hand += next.in_hand;
        load.arrived += other.arrived;
        load.arrived_tokens += other.arrived_tokens;
        load.arrived_squares += other.arrived_squares;
        load.answered_tokens += other.answered_tokens;
        load.latencies = load.latencies.plus(&other.latencies);
    }

    /// Takes its first seconds away, with their part of all but the latencies, which are counted one by one.
    fn take(&mut self, seconds: f64) -> Self {
        let part = seconds / self.seconds;
        let cut = |whole: &mut f64| {
            let first = *whole * part;
            *whole -= first;
            first
        };
        Self {
            seconds: cut(&mut self.seconds),
            waiting: cut(&mut self.waiting),
            in_hand: cut(&mut self.in_hand),
            load: Load {
                arrived: cut(&mut self.load.arrived),
                arrived_tokens: cut(&mut self.load.arrived_tokens),
                arrived_squares: cut(&mut self.load.arrived_squares),
                answered_tokens: cut(&mut self.load.answered_tokens),
                ..Load::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many requests came in so long.
    fn came(arrived: f64, seconds: f64) -> Stretch {
        let mut load = Load { arrived, ..Load::default() };
        load.latencies.observe(std::time::Duration::from_millis(5));
        Stretch { seconds, load, ..Stretch::default() }
    }

    /// Ten requests come each second, and looks are a second apart: how old what was seen is at each look, and how many requests
    /// were seen in all.
    fn played(gateways: Gateways, looks: u32) -> (Vec<f64>, f64) {
        let mut told = Told::by(Some(gateways));
        let (mut before, mut ages, mut sum) = (0., Vec::new(), 0.);
        for look in 0..looks {
            let now = told.look + f64::from(look);
            while told.next() <= now {
                let next = told.next();
                told.hear(next, came(10. * (next - before), next - before), Level::default());
                before = next;
            }
            let (seen, _) = told.look(now);
            assert!((seen.load.arrived - 10. * seen.seconds).abs() < 1e-6);
            sum += seen.load.arrived;
            ages.push(now - told.until);
        }
        (ages, sum)
    }

    #[test]
    fn with_two_gateways_what_is_seen_is_two_thirds_of_a_second_old_in_the_mean() {
        for (count, mean) in [(1, 1. / 2.), (2, 2. / 3.), (5, 5. / 6.)] {
            let ages = (0..2000).map(|seed| {
                let (ages, sum) = played(Gateways { count, seed }, 9);
                assert!(ages[2..].iter().all(|age| (0. ..=1.).contains(age) && (age - ages[8]).abs() < 1e-9));
                assert!(
                    (sum - 10.
                        * (ages.len() as f64 - 1. + Told::by(Some(Gateways { count, seed })).look - ages[8]))
                        .abs()
                        < 1e-6
                );
                ages[8]
            });
            let told = ages.sum::<f64>() / 2000.;
            assert!((told - mean).abs() < 0.02, "{count}: {told}");
        }
    }

    #[test]
    fn of_what_the_others_have_not_reached_a_part_is_seen_and_the_rest_the_next_time() {
        let mut told = Told { phases: vec![0.9, 0.5], ..Told::default() };
        told.hear(0.9, came(9., 0.9), Level { requests: 3., ..Level::default() });
        let (seen, level) = told.look(1.2);
        assert!((seen.load.arrived - 5.).abs() < 1e-9 && (seen.seconds - 0.5).abs() < 1e-9, "{seen:?}");
        assert_eq!((seen.load.latencies.total(), level.requests), (0, 3.), "what is there is the last word");
        told.hear(1.9, came(20., 1.), Level::default());
        let (seen, _) = told.look(2.6);
        assert!((seen.load.arrived - 24.).abs() < 1e-9 && (seen.seconds - 1.4).abs() < 1e-9, "{seen:?}");
        assert_eq!(seen.load.latencies.total(), 2);
    }

    #[test]
    fn with_nobody_between_all_is_seen_as_it_is() {
        let mut told = Told::by(None);
        assert!(told.is_at_once() && told.next().is_infinite());
        told.hear(0.3, came(7., 0.3), Level::default());
        assert_eq!(told.look(0.3).0.load.arrived, 7.);
    }
}
