//! The last step of a vector: cut, then brought to length one. And the product of two.

/// Keeps the first `dimension` numbers. Cutting comes before normalising, for what is cut afterwards is no longer of
/// length one.
pub fn finish(mut vector: Vec<f32>, dimension: Option<usize>, normalize: bool) -> Vec<f32> {
    if let Some(dimension) = dimension {
        vector.truncate(dimension);
    }
    if normalize {
        // The smallest length that is divided by, as in torch: a vector of zeros stays one.
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

/// The product of two vectors, which is their cosine if both are of length one. Eight sums at once, which a compiler can
/// keep in one register.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_normalised_vector_has_length_one(
            vector in proptest::collection::vec(-100f32..100., 1..400),
            cut in 1usize..400,
        ) {
            let finished = finish(vector.clone(), Some(cut), true);
            prop_assert_eq!(finished.len(), cut.min(vector.len()));
            let length = finished.iter().map(|x| x * x).sum::<f32>().sqrt();
            prop_assert!((length - 1.).abs() < 1e-4 || vector.iter().take(cut).all(|x| x.abs() < 1e-6));
        }
    }

    #[test]
    fn a_long_product_has_all_its_parts() {
        let ones = vec![1.; 19];
        let counting: Vec<f32> = (1..=19).map(|n| n as f32).collect();
        assert_eq!(dot(&ones, &counting), 190.);
    }

    #[test]
    fn zeros_stay_zeros() {
        assert_eq!(finish(vec![0., 0.], None, true), [0., 0.]);
    }

    #[test]
    fn without_normalising_numbers_stay() {
        assert_eq!(finish(vec![3., 4., 5.], Some(2), false), [3., 4.]);
    }
}
