//! From the numbers that a model gives for labels to what clients are told.

/// Makes shares of numbers: one alone becomes what its logistic function says, several share one among them.
pub fn shares(numbers: &mut [f32]) {
    if let [number] = numbers {
        *number = 1. / (1. + (-*number).exp());
        return;
    }
    let largest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    numbers.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f32 = numbers.iter().sum();
    numbers.iter_mut().for_each(|x| *x /= sum);
}

/// The places of numbers, the largest's first. Of equal ones, the first comes first.
pub fn best_first(numbers: &[f32]) -> Vec<usize> {
    let mut places: Vec<_> = (0..numbers.len()).collect();
    places.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[f32]) -> Vec<f32> {
        let mut numbers = numbers.to_vec();
        shares(&mut numbers);
        numbers
    }

    #[test]
    fn one_number_is_by_itself() {
        assert_eq!((of(&[0.]), of(&[200.]), of(&[-200.])), (vec![0.5], vec![1.], vec![0.]));
        assert!((of(&[1.])[0] - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        assert_eq!(of(&[1000., 1000.]), [0.5, 0.5]);
        assert_eq!(of(&[-1000., 0., -1000.]), [0., 1., 0.]);
    }

    #[test]
    fn equal_numbers_stay_in_order() {
        assert_eq!(best_first(&[1., 3., -2., 3.]), [1, 3, 0, 2]);
        assert_eq!(best_first(&[]), [0; 0]);
    }

    proptest! {
        #[test]
        fn several_share_one_and_keep_their_order(numbers in proptest::collection::vec(-50f32..50., 2..20)) {
            let shared = of(&numbers);
            prop_assert!((shared.iter().sum::<f32>() - 1.).abs() < 1e-5);
            for (i, j) in (1..numbers.len()).map(|i| (i - 1, i)) {
                prop_assert!(numbers[i] > numbers[j] || shared[i] <= shared[j]);
            }
        }
    }
}
