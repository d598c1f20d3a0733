//! Inputs of different lengths as one rectangle.

/// Rows of token ids, each padded to the longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padded {
    /// Tokens of each row before padding. Never zero.
    pub lengths: Vec<usize>,
    /// Tokens of each row after it.
    pub columns: usize,
    /// `[rows, columns]`
    pub ids: Vec<i64>,
    /// `[rows, columns]`: one for a token, zero for padding.
    pub mask: Vec<i64>,
}

impl Padded {
    /// Pads rows, none of which is empty, on the right with `filler`.
    pub fn new<'a>(rows: impl Iterator<Item = &'a [u32]> + Clone, filler: u32) -> Self {
        let columns = rows.clone().map(<[u32]>::len).max().unwrap_or(0);
        let mut padded = Self { lengths: Vec::new(), columns, ids: Vec::new(), mask: Vec::new() };
        for row in rows {
            padded.lengths.push(row.len());
            padded.ids.extend(row.iter().copied().map(i64::from));
            padded.mask.extend(row.iter().map(|_| 1));
            padded.ids.resize(padded.lengths.len() * columns, filler.into());
            padded.mask.resize(padded.lengths.len() * columns, 0);
        }
        padded
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_rows_are_filled_on_the_right() {
        let rows: [&[u32]; 2] = [&[1, 2, 3], &[4]];
        let padded = Padded::new(rows.into_iter(), 9);
        assert_eq!((padded.rows(), padded.columns), (2, 3));
        assert_eq!(padded.ids, [1, 2, 3, 4, 9, 9]);
        assert_eq!(padded.mask, [1, 1, 1, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in proptest::collection::vec(proptest::collection::vec(1u32.., 1..20), 0..10)) {
            let padded = Padded::new(rows.iter().map(Vec::as_slice), 0);
            prop_assert_eq!(padded.ids.len(), padded.mask.len());
            let back: Vec<Vec<u32>> = padded
                .ids
                .chunks(padded.columns.max(1))
                .zip(&padded.lengths)
                .map(|(row, &length)| row[..length].iter().map(|&id| id as u32).collect())
                .collect();
            prop_assert_eq!(back, rows);
        }
    }
}
