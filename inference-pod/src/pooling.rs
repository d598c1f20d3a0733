//! From one vector a token to one vector an input.

use std::ops::Add;

use serde::Serialize;

/// How the vectors of an input's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    LastToken,
    /// The largest of each number.
    Max,
    /// Their sum, by the root of how many they are.
    MeanSqrtLen,
    /// Their mean, of which each token's part grows with its place: the second counts twice as much as the first.
    WeightedMean,
}

/// Pools one row: `hidden` is `[columns, dimension]`, of which the first `length` columns are the input's tokens and
/// the rest is padding.
///
/// # Panics
/// If `length` is zero or more than `hidden` holds.
pub fn pool(pooling: Pooling, hidden: &[f32], length: usize, dimension: usize) -> Vec<f32> {
    let token = |i: usize| &hidden[i * dimension..(i + 1) * dimension];
    match pooling {
        Pooling::Cls => token(0).to_vec(),
        Pooling::LastToken => token(length - 1).to_vec(),
        Pooling::Max => fold(token(0), (1..length).map(token), f32::max),
        Pooling::Mean => scaled(fold(token(0), (1..length).map(token), Add::add), length as f32),
        Pooling::MeanSqrtLen => {
            scaled(fold(token(0), (1..length).map(token), Add::add), (length as f32).sqrt())
        }
        Pooling::WeightedMean => {
            let mut sum = token(0).to_vec();
            for i in 1..length {
                sum.iter_mut().zip(token(i)).for_each(|(sum, x)| *sum += x * (i + 1) as f32);
            }
            scaled(sum, (1..=length).sum::<usize>() as f32)
        }
    }
}

fn fold<'a>(
    first: &[f32],
    others: impl Iterator<Item = &'a [f32]>,
    join: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    let mut all = first.to_vec();
    for other in others {
        all.iter_mut().zip(other).for_each(|(a, &b)| *a = join(*a, b));
    }
    all
}

fn scaled(mut vector: Vec<f32>, by: f32) -> Vec<f32> {
    vector.iter_mut().for_each(|x| *x /= by);
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tokens of two numbers, then one of padding.
    const HIDDEN: [f32; 8] = [1., 2., 3., 4., 5., 9., 1e9, -1e9];

    #[test]
    fn padding_never_counts() {
        assert_eq!(pool(Pooling::Mean, &HIDDEN, 3, 2), [3., 5.]);
        assert_eq!(pool(Pooling::Cls, &HIDDEN, 3, 2), [1., 2.]);
        assert_eq!(pool(Pooling::LastToken, &HIDDEN, 3, 2), [5., 9.]);
        assert_eq!(pool(Pooling::Max, &HIDDEN, 3, 2), [5., 9.]);
        assert_eq!(pool(Pooling::MeanSqrtLen, &HIDDEN, 3, 2), [9. / 3f32.sqrt(), 15. / 3f32.sqrt()]);
        assert_eq!(pool(Pooling::WeightedMean, &HIDDEN, 3, 2), [22. / 6., 37. / 6.]);
    }

    #[test]
    fn one_token_is_itself() {
        use Pooling::{Cls, LastToken, Max, Mean, MeanSqrtLen, WeightedMean};
        for pooling in [Mean, Cls, LastToken, Max, MeanSqrtLen, WeightedMean] {
            assert_eq!(pool(pooling, &HIDDEN, 1, 2), [1., 2.]);
        }
    }
}
