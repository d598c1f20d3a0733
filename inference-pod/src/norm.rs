//! The normalised sum of vectors, as between the parts of a layer. ONNX Runtime's own operator for it adds one number
//! after the other and takes a tenth of a run in float32, a fifth of one in int8 (docs/benchmarks/cpu.md).

/// Numbers that are added up side by side, which a compiler can keep in registers.
const LANES: usize = 16;

/// What a normalised number is multiplied with, and what is added to it then.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// One for each number.
    pub gamma: &'a [f32],
    /// One for each number, or nothing.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance, so that no number is divided by zero.
    pub epsilon: f32,
}

impl Norm<'_> {
    /// Brings a vector to mean zero and variance one, then to where the model has it.
    pub fn apply(&self, vector: &mut [f32]) {
        let count = vector.len() as f32;
        let mean = total(vector, |x| x) / count;
        let variance = total(vector, |x| (x - mean) * (x - mean)) / count;
        let scale = (variance + self.epsilon).sqrt().recip();
        for (x, gamma) in vector.iter_mut().zip(self.gamma) {
            *x = (*x - mean) * scale * gamma;
        }
        if let Some(beta) = self.beta {
            add(vector, beta);
        }
    }
}

/// Adds a vector to another.
pub fn add(vector: &mut [f32], other: &[f32]) {
    vector.iter_mut().zip(other).for_each(|(x, y)| *x += y);
}

/// The sum of something of each number.
#[inline(always)]
fn total(numbers: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += of(chunk[i]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&x| of(x)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_numbers_become_what_is_added() {
        let norm = Norm { gamma: &[5., 6.], beta: Some(&[7., 8.]), epsilon: 1e-12 };
        let mut vector = [3., 3.];
        norm.apply(&mut vector);
        assert_eq!(vector, [7., 8.]);
    }

    #[test]
    fn what_is_not_finite_gives_nothing_that_is() {
        let norm = Norm { gamma: &[1.; 3], beta: None, epsilon: 1e-5 };
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut vector = [1., wrong, 2.];
            norm.apply(&mut vector);
            assert!(vector.iter().all(|x| !x.is_finite()), "{vector:?}");
        }
    }

    proptest! {
        #[test]
        fn mean_and_variance_are_as_they_should_be(
            numbers in proptest::collection::vec(-3f32..3., 2..100),
            offset in -50f32..50.,
        ) {
            let mut vector: Vec<f32> = numbers.iter().map(|x| x + offset).collect();
            let exact: Vec<f64> = vector.iter().map(|&x| f64::from(x)).collect();
            let mean = exact.iter().sum::<f64>() / exact.len() as f64;
            let variance = exact.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / exact.len() as f64;
            let gamma: Vec<f32> = (0..vector.len()).map(|i| i as f32).collect();
            let beta: Vec<f32> = gamma.iter().map(|x| 1. - x).collect();
            Norm { gamma: &gamma, beta: Some(&beta), epsilon: 1e-3 }.apply(&mut vector);
            for (i, (x, exact)) in vector.iter().zip(exact).enumerate() {
                let expected = (exact - mean) / (variance + 1e-3).sqrt() * i as f64 + 1. - i as f64;
                prop_assert!((f64::from(*x) - expected).abs() < 1e-3, "{} is not {}", x, expected);
            }
        }
    }
}
