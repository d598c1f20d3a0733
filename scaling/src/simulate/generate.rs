//! Traffic that is made rather than recorded: one hour of each kind, the same for the same seed.

use std::f64::consts::TAU;

use crate::simulate::{
    random::Random,
    trace::{Arrival, Trace},
};

/// How long each is, in seconds.
pub const SECONDS: f64 = 3600.;

/// Mean length of a request. With it 80 requests a second keep one pod of the [default](super::pod::PodModel) busy.
const TOKENS: f64 = 600.;

/// The longest request.
const LONGEST: f64 = 8192.;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The same all the time: 200 requests a second.
    Steady,
    /// Ten times as much for the middle third: 30, then 300 requests a second.
    Step,
    /// 40 requests a second, and three times 90 seconds of ten times as many.
    Spike,
    /// From 10 to 400 requests a second and back, evenly.
    Ramp,
    /// 300 requests a second for two minutes, then none for three.
    OnOff,
    /// Two days of half an hour each, from 20 to 320 requests a second, with a noise that lasts.
    Diurnal,
    /// 50 requests a second that jump to 450 without notice, for 15 seconds each minute and a half on average; lengths
    /// differ more than elsewhere.
    Bursty,
    /// A few requests, then none for two minutes on average.
    Sparse,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Steady,
        Self::Step,
        Self::Spike,
        Self::Ramp,
        Self::OnOff,
        Self::Diurnal,
        Self::Bursty,
        Self::Sparse,
    ];

    /// How it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Step => "step",
            Self::Spike => "spike",
            Self::Ramp => "ramp",
            Self::OnOff => "onoff",
            Self::Diurnal => "diurnal",
            Self::Bursty => "bursty",
            Self::Sparse => "sparse",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// An hour of it.
    pub fn generate(self, seed: u64) -> Trace {
        // Kinds of the same seed have nothing to do with each other.
        let mut random = Random::new(seed.wrapping_mul(64).wrapping_add(self as u64));
        let spread = if self == Self::Bursty { 1.2 } else { 0.7 };
        let times = match self {
            Self::Steady => poisson(200., |_| 200., &mut random),
            Self::Step => poisson(300., |at| in_middle_third(at, 300., 30.), &mut random),
            Self::Spike => poisson(400., |at| spikes(at, 400., 40.), &mut random),
            Self::Ramp => poisson(400., |at| 400. - 390. * (at / SECONDS * 2. - 1.).abs(), &mut random),
            Self::OnOff => poisson(300., |at| if at % 300. < 120. { 300. } else { 0. }, &mut random),
            Self::Diurnal => diurnal(&mut random),
            Self::Bursty => bursty(&mut random),
            Self::Sparse => sparse(&mut random),
        };
        let mut tokens = || random.lognormal(TOKENS, spread).clamp(1., LONGEST) as u32;
        let arrivals = times.into_iter().map(|at| Arrival { at, tokens: tokens() }).collect();
        Trace::new(arrivals, SECONDS)
    }
}

/// Arrivals that know nothing of each other, at a rate that changes: drawn at the highest rate and thinned out.
fn poisson(highest: f64, rate: impl Fn(f64) -> f64, random: &mut Random) -> Vec<f64> {
    let mut times = Vec::new();
    let mut at = random.exponential(1. / highest);
    while at < SECONDS {
        if random.unit() * highest < rate(at) {
            times.push(at);
        }
        at += random.exponential(1. / highest);
    }
    times
}

fn in_middle_third(at: f64, inside: f64, outside: f64) -> f64 {
    if (SECONDS / 3. ..SECONDS * 2. / 3.).contains(&at) { inside } else { outside }
}

fn spikes(at: f64, inside: f64, outside: f64) -> f64 {
    if at >= 900. && at % 900. < 90. { inside } else { outside }
}

fn diurnal(random: &mut Random) -> Vec<f64> {
    // Each minute keeps nine tenths of the noise of the one before.
    let mut level = 0.;
    let noise: Vec<f64> = (0..=(SECONDS / 60.) as usize)
        .map(|_| {
            level = 0.9 * level + 0.1 * random.normal();
            f64::exp(level)
        })
        .collect();
    let rate = |at: f64| (170. - 150. * (TAU * at / 1800.).cos()) * noise[(at / 60.) as usize];
    poisson(600., rate, random)
}

/// A Poisson process whose rate is one of two, each for an exponential time.
fn bursty(random: &mut Random) -> Vec<f64> {
    let (mut at, mut is_burst, mut switches) = (0., false, Vec::new());
    while at < SECONDS {
        at += random.exponential(if is_burst { 15. } else { 75. });
        switches.push(at);
        is_burst = !is_burst;
    }
    let rate = |at: f64| match switches.partition_point(|&switch| switch <= at) % 2 {
        0 => 50.,
        _ => 450.,
    };
    poisson(450., rate, random)
}

fn sparse(random: &mut Random) -> Vec<f64> {
    let mut times = Vec::new();
    let mut at = random.exponential(120.);
    while at < SECONDS {
        let mut next = at;
        while next < SECONDS {
            times.push(next);
            if random.unit() < 1. / 3. {
                break;
            }
            next += random.exponential(1.);
        }
        at += random.exponential(120.);
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_a_trace() {
        for kind in Kind::ALL {
            assert_eq!(kind.generate(3), kind.generate(3), "{kind:?}");
            assert_ne!(kind.generate(3), kind.generate(4), "{kind:?}");
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("Steady"), None);
    }

    #[test]
    fn each_is_what_its_name_says() {
        let rate = |kind: Kind, from: f64, to: f64| {
            let trace = kind.generate(1);
            trace.arrivals().iter().filter(|arrival| (from..to).contains(&arrival.at)).count() as f64
                / (to - from)
        };
        let near = |got: f64, wanted: f64| assert!((got / wanted - 1.).abs() < 0.1, "{got} for {wanted}");
        near(rate(Kind::Steady, 0., 3600.), 200.);
        near(rate(Kind::Step, 0., 1200.), 30.);
        near(rate(Kind::Step, 1200., 2400.), 300.);
        near(rate(Kind::Spike, 900., 990.), 400.);
        near(rate(Kind::Spike, 100., 900.), 40.);
        near(rate(Kind::Ramp, 1780., 1820.), 400.);
        near(rate(Kind::OnOff, 300., 420.), 300.);
        assert_eq!(rate(Kind::OnOff, 420., 600.), 0.);
        assert!(rate(Kind::Diurnal, 850., 950.) > 5. * rate(Kind::Diurnal, 0., 100.));
        assert!((60. ..180.).contains(&rate(Kind::Bursty, 0., 3600.)));
        assert!((40. ..200.).contains(&(rate(Kind::Sparse, 0., 3600.) * 3600.)));
    }

    #[test]
    fn lengths_are_as_documented() {
        let trace = Kind::Steady.generate(1);
        let sum: f64 = trace.arrivals().iter().map(|arrival| f64::from(arrival.tokens)).sum();
        assert!((sum / trace.arrivals().len() as f64 / TOKENS - 1.).abs() < 0.02);
    }
}
