//! How much work so many replicas take.

use super::erlang;

/// Beyond so many replicas the spare ones that are needed grow with the root of their number.
const EXACT: u32 = 64;

/// How far what the table was made for may be from what is so, before it is made anew.
const TOLERANCE: f64 = 0.03;

/// What the service is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Tokens a second that one replica computes.
    pub rate: f64,
    /// Seconds that it takes for one request, on average.
    pub service: f64,
    /// How much requests differ: their squared coefficient of variation.
    pub variation: f64,
    /// Seconds that a request may wait.
    pub slack: f64,
    /// The share of requests that may wait longer.
    pub late: f64,
    /// The largest part of its time that a replica may be busy.
    pub busy: f64,
}

impl Shape {
    fn is_near(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * a.max(b);
        near(self.rate, other.rate)
            && near(self.service, other.service)
            && near(1. + self.variation, 1. + other.variation)
            && near(self.slack, other.slack)
            && self.late == other.late
            && self.busy == other.busy
    }
}

/// The most work that each number of replicas takes within the objective. Made as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Capacity {
    shape: Option<Shape>,
    /// Replicas' worth of work that 1, 2, 3 and so on replicas take.
    loads: Vec<f64>,
}

impl Capacity {
    /// The service is like this now.
    pub fn fit(&mut self, shape: Shape) {
        if !self.shape.is_some_and(|known| known.is_near(&shape)) {
            self.shape = Some(shape);
            self.loads.clear();
        }
    }

    /// Tokens a second that one replica computes.
    pub fn one(&self) -> f64 {
        self.shape.map_or(f64::INFINITY, |shape| shape.rate)
    }

    /// The replicas that so many tokens a second take: rounded up, the fewest that keep the objective; before that, how far
    /// between one fewer and that it is. Never more than `most`, for there is no use to know.
    pub fn replicas(&mut self, tokens: f64, most: u32) -> f64 {
        let Some(shape) = self.shape.filter(|_| tokens > 0. && most > 0) else { return 0. };
        let load = tokens / shape.rate;
        if most > EXACT && load > self.load(EXACT, &shape) {
            return large(load, self.load(EXACT, &shape)).min(f64::from(most));
        }
        let mut below = 0.;
        for count in 1..=EXACT.min(most) {
            let takes = self.load(count, &shape);
            if load <= takes {
                return f64::from(count - 1) + ((load - below) / (takes - below)).clamp(1e-3, 1.);
            }
            below = takes;
        }
        f64::from(most)
    }

    fn load(&mut self, replicas: u32, shape: &Shape) -> f64 {
        while (self.loads.len() as u32) < replicas {
            let next = self.loads.len() as u32 + 1;
            self.loads.push(most_load(next, shape));
        }
        self.loads[replicas as usize - 1]
    }
}

/// The n with n - spare x root(n / [`EXACT`]) = load, if [`EXACT`] replicas take `exact`, all but that spare.
fn large(load: f64, exact: f64) -> f64 {
    let spare = (f64::from(EXACT) - exact) / f64::from(EXACT).sqrt();
    let root = (spare + (spare * spare + 4. * load).sqrt()) / 2.;
    root * root
}

/// By bisection.
fn most_load(replicas: u32, shape: &Shape) -> f64 {
    let (mut fits, mut does_not) = (0., f64::from(replicas) * shape.busy);
    for _ in 0..30 {
        let load = (fits + does_not) / 2.;
        let late = erlang::late(replicas, load, shape.service, shape.variation, shape.slack);
        if late <= shape.late { fits = load } else { does_not = load }
    }
    // Not even with hardly any work: then at least something.
    fits.max(0.05 * f64::from(replicas))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape =
        Shape { rate: 1000., service: 0.1, variation: 1., slack: 0.2, late: 0.01, busy: 0.98 };

    fn capacity() -> Capacity {
        let mut capacity = Capacity::default();
        capacity.fit(SHAPE);
        capacity
    }

    #[test]
    fn the_fewest_that_keep_the_objective() {
        let mut capacity = capacity();
        for load in [0.1, 0.5, 1., 3., 7.7, 15., 40.] {
            let count = capacity.replicas(load * 1000., 1000).ceil() as u32;
            let late = |count| erlang::late(count, load, 0.1, 1., 0.2);
            assert!(late(count) <= 0.0101 && (count == 1 || late(count - 1) > 0.0099), "{load}: {count}");
        }
    }

    #[test]
    fn more_work_never_takes_fewer() {
        let mut capacity = capacity();
        let counts: Vec<f64> =
            (0..20_000).map(|load| capacity.replicas(f64::from(load) * 10., 1000)).collect();
        assert_eq!(counts[0], 0.);
        assert!(counts.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] < 0.2));
        assert_eq!(capacity.replicas(1e30, 7), 7.);
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let any = (-2.0..5., -4.0..3., 0.0..100., -4.0..3., 0.0..0.2, 0.5..0.99);
        any.prop_map(|(rate, service, variation, slack, late, busy)| Shape {
            rate: 10_f64.powf(rate),
            service: 10_f64.powf(service),
            variation,
            slack: 10_f64.powf(slack),
            late,
            busy,
        })
    }

    proptest! {
        /// Also where so much work comes that the most replicas that may be are not enough.
        #[test]
        fn more_work_never_takes_fewer_whatever_the_service_is_like(
            shape in shapes(), most in 1u32..200, step in 0.01..1.5
        ) {
            let mut capacity = Capacity::default();
            capacity.fit(shape);
            let loads: Vec<f64> = (1..200_i32).map(|place| f64::from(place) * step).collect();
            let counts: Vec<f64> =
                loads.iter().map(|load| capacity.replicas(load * shape.rate, most)).collect();
            prop_assert!(counts.iter().all(|count| (0. ..=f64::from(most)).contains(count)), "{counts:?}");
            prop_assert!(counts.is_sorted(), "{counts:?}");
            // No fewer than would always be busy, give or take a rounding.
            let busy = |(load, count): (&f64, &f64)| count.ceil() >= (load - 1e-6).ceil().min(f64::from(most));
            prop_assert!(loads.iter().zip(&counts).all(busy), "{counts:?}");
        }
    }

    #[test]
    fn the_table_is_kept_while_little_changes() {
        let mut capacity = capacity();
        let before = capacity.replicas(5000., 100);
        capacity.fit(Shape { rate: 1010., ..SHAPE });
        assert_eq!(capacity.replicas(5000., 100), before);
        capacity.fit(Shape { rate: 2000., ..SHAPE });
        assert!(capacity.replicas(5000., 100) < before - 1.);
    }

    #[test]
    fn a_slack_of_nothing_is_no_reason_for_ever_more() {
        let mut capacity = Capacity::default();
        capacity.fit(Shape { slack: 0., late: 0., ..SHAPE });
        assert!(capacity.replicas(1000., 1000) <= 20.);
    }
}
