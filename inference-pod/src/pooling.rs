//! From one vector a token to one vector an input.

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
        Pooling::Mean => {
            let mut sum = token(0).to_vec();
            for i in 1..length {
                sum.iter_mut().zip(token(i)).for_each(|(sum, x)| *sum += x);
            }
            sum.iter_mut().for_each(|x| *x /= length as f32);
            sum
        }
    }
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
    }

    #[test]
    fn one_token_is_itself() {
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::LastToken] {
            assert_eq!(pool(pooling, &HIDDEN, 1, 2), [1., 2.]);
        }
    }
}
