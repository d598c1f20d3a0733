//! Batches that a GPU is better given in parts: one long row among many short ones.
//!
//! ONNX Runtime's attention takes memory as if each row were as long as the longest, though no token is computed for that:
//! what it makes of queries, keys and values before it adds their biases. For 1024 rows of which one has 8192 tokens that would be
//! 51 GB where a token has 1024 numbers.

use crate::{batch::row::Row, export::packed::rounded_row};

/// Rows times the longest of them, at most: 1024 rows of 512 tokens, so that for most models there is but one part.
pub const AREA: usize = 1024 * 512;

/// Runs a batch in parts, none of which has a larger area but by a single row, and gives what comes of each row in its place.
///
/// # Errors
/// The first of `run`.
pub fn in_parts<T, E>(
    batch: &[&Row],
    area: usize,
    mut run: impl FnMut(&[&Row]) -> Result<Vec<T>, E>,
) -> Result<Vec<T>, E> {
    let length = |&row: &usize| batch[row].ids.len();
    let fits = |rows: usize, longest: usize| rows * rounded_row(longest) <= area;
    let mut order: Vec<_> = (0..batch.len()).collect();
    if fits(batch.len(), order.iter().map(length).max().unwrap_or_default()) {
        return run(batch);
    }
    // The longest together, so that those that are left may be many.
    order.sort_by_key(|row| std::cmp::Reverse(length(row)));
    let (mut left, mut results) = (&order[..], Vec::with_capacity(batch.len()));
    while let Some(longest) = left.first().map(length) {
        let (part, rest) = left.split_at((area / rounded_row(longest)).clamp(1, left.len()));
        let rows: Vec<_> = part.iter().map(|&row| batch[row]).collect();
        results.extend(part.iter().copied().zip(run(&rows)?));
        left = rest;
    }
    results.sort_by_key(|(row, _)| *row);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(lengths: &[usize]) -> Vec<Row> {
        (0..).zip(lengths).map(|(i, &length)| Row::new(vec![i; length])).collect()
    }

    /// The lengths of each part, and what came of each row.
    fn parts(lengths: &[usize], area: usize) -> (Vec<Vec<usize>>, Vec<u32>) {
        let rows = rows(lengths);
        let rows: Vec<_> = rows.iter().collect();
        let mut parts = Vec::new();
        let ran = in_parts(&rows, area, |part| {
            parts.push(part.iter().map(|row| row.ids.len()).collect());
            Ok::<_, ()>(part.iter().map(|row| row.ids[0]).collect())
        });
        (parts, ran.expect("none fails"))
    }

    proptest! {
        #[test]
        fn each_row_is_run_once_and_no_part_is_too_large(
            lengths in proptest::collection::vec(1..600usize, 1..60),
            area in 1..20_000usize,
        ) {
            let (parts, ran) = parts(&lengths, area);
            prop_assert_eq!(ran, (0..lengths.len() as u32).collect::<Vec<_>>());
            for part in &parts {
                let longest = part.iter().max().copied().unwrap_or_default();
                prop_assert!(part.len() == 1 || part.len() * rounded_row(longest) <= area);
            }
            let all = parts.concat().len();
            prop_assert_eq!(all, lengths.len());
        }
    }

    #[test]
    fn what_fits_is_run_as_it_is_and_a_long_row_takes_few_with_it() {
        assert_eq!(parts(&[3, 512, 7], AREA), (vec![vec![3, 512, 7]], vec![0, 1, 2]));
        let lengths: Vec<_> = (0..1024).map(|i| if i == 500 { 8192 } else { 32 }).collect();
        let sizes: Vec<_> = parts(&lengths, AREA).0.iter().map(Vec::len).collect();
        assert_eq!(sizes, [64, 960]);
    }

    #[test]
    fn what_fails_is_told_and_nothing_is_run_after_it() {
        let rows = rows(&[600; 3]);
        let mut ran = 0;
        let failed = in_parts(&rows.iter().collect::<Vec<_>>(), 1, |_| {
            ran += 1;
            Err::<Vec<()>, _>("lost")
        });
        assert_eq!((failed, ran), (Err("lost"), 1));
    }
}
