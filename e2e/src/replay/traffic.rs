//! Traffic that takes a service from zero to one pod, to three, back to one and to zero.

use kembed_scaling::simulate::{Arrival, Trace, random::Random};

/// Tokens of a request: at the rate that [`replay`](crate::replay) gives a pod, 52 ms of it.
pub const TOKENS: u32 = 250;

/// Seconds, and requests a second in them: three in ten of what one pod can do, then twice what one can, then three in ten again.
pub const PHASES: [(f64, f64); 5] = [(10., 0.), (60., 6.), (60., 40.), (150., 6.), (120., 0.)];

/// Arrivals that know nothing of each other, the same for the same seed.
pub fn trace(seed: u64) -> Trace {
    let (mut random, mut arrivals, mut began) = (Random::new(seed), Vec::new(), 0.);
    for (seconds, rate) in PHASES {
        let ends = began + seconds;
        // Of no requests a second the first comes never.
        let mut next = |at: f64| at + random.exponential(1. / rate);
        let all = std::iter::successors(Some(next(began)), |at| Some(next(*at)));
        arrivals.extend(all.take_while(|at| *at < ends).map(|at| Arrival { at, tokens: TOKENS }));
        began = ends;
    }
    Trace::new(arrivals, began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_rate() {
        let trace = trace(1);
        assert_eq!(trace.seconds(), 400.);
        let count = |from, to| trace.arrivals().iter().filter(|a| (from..to).contains(&a.at)).count();
        assert_eq!((count(0., 10.), count(280., 400.)), (0, 0));
        assert!((2000..2800).contains(&count(70., 130.)), "{}", count(70., 130.));
    }
}
