//! What stands between the two products of most feed-forward parts, done while the first one's outputs are in registers.

use std::f32::consts::FRAC_1_SQRT_2;

use super::WIDTH;

/// Beyond it the error function is one to the last bit of a float.
const END: f32 = 4.;

/// The error function is about `x * p(x * x) / q(x * x)`: the numbers of p and q, highest powers first, as Eigen has them.
const P: [f32; 7] = [
    -2.726_142_3e-10,
    2.770_681_4e-8,
    -2.101_024e-6,
    -5.692_506_4e-5,
    -7.349_906_3e-4,
    -2.954_6e-3,
    -1.609_603_3e-2,
];
const Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];

/// Adds a bias to each number and takes its gelu.
// Into its caller, so that it is compiled for the same processor, as all it calls.
#[inline(always)]
pub(super) fn add_and_gelu(numbers: &mut [f32; WIDTH], bias: &[f32; WIDTH]) {
    for i in 0..WIDTH {
        numbers[i] = gelu(numbers[i] + bias[i]);
    }
}

/// A number by the part of a normal distribution that lies below it.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1. + erf(x * FRAC_1_SQRT_2))
}

#[inline(always)]
fn erf(x: f32) -> f32 {
    let inside = x * polynomial(&P, x * x) / polynomial(&Q, x * x);
    let below = if x > -END { inside } else { -1. };
    if x < END { below } else { 1. }
}

#[inline(always)]
fn polynomial(factors: &[f32], x: f32) -> f32 {
    factors.iter().fold(0., |sum, factor| sum * x + factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its series, in which numbers up to so large lose no more than a few digits of a double.
    fn exact_erf(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2. / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn it_is_exact_to_a_few_bits() {
        for i in -600..=600 {
            let x = i as f32 / 100.;
            let exact = 0.5 * f64::from(x) * (1. + exact_erf(f64::from(x) / 2f64.sqrt()));
            let off = (f64::from(gelu(x)) - exact).abs();
            assert!(off < 2e-7 * f64::from(x.abs()).max(1.), "gelu({x}) is off by {off}");
        }
    }

    #[test]
    fn large_numbers_stay_or_become_nothing() {
        for x in [10., 1e3, 1e6] {
            assert_eq!((gelu(x), gelu(-x)), (x, 0.));
        }
    }

    #[test]
    fn what_is_not_finite_gives_nothing_that_is() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!gelu(wrong).is_finite(), "{wrong}");
        }
    }

    #[test]
    fn a_bias_is_added_first() {
        let mut numbers = std::array::from_fn(|i| i as f32);
        add_and_gelu(&mut numbers, &[-7.; WIDTH]);
        assert_eq!((numbers[7], numbers[8]), (0., gelu(1.)));
    }
}
