//! Inputs of different lengths as one rectangle.

use super::row::{Row, Wanted};

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
    /// `[rows, columns]`: the types of tokens; nothing where all are zero.
    pub types: Vec<i64>,
    /// What is wanted of each row.
    pub wanted: Vec<Wanted>,
}

impl Padded {
    /// Pads rows, none of which is empty, on the right with `filler`.
    pub fn new<'a>(rows: impl Iterator<Item = &'a Row> + Clone, filler: u32) -> Self {
        let columns = rows.clone().map(|row| row.ids.len()).max().unwrap_or(0);
        let typed = rows.clone().any(|row| !row.types.is_empty());
        let mut padded = Self {
            lengths: Vec::new(),
            columns,
            ids: Vec::new(),
            mask: Vec::new(),
            types: Vec::new(),
            wanted: Vec::new(),
        };
        for row in rows {
            padded.lengths.push(row.ids.len());
            padded.wanted.push(row.wanted);
            let end = padded.lengths.len() * columns;
            padded.ids.extend(row.ids.iter().copied().map(i64::from));
            padded.ids.resize(end, filler.into());
            padded.mask.extend(row.ids.iter().map(|_| 1));
            padded.mask.resize(end, 0);
            if typed {
                padded.types.extend(row.types.iter().copied().map(i64::from));
                padded.types.resize(end, 0);
            }
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
        let rows = [Row::new(vec![1, 2, 3]), Row::new(vec![4])];
        let padded = Padded::new(rows.iter(), 9);
        assert_eq!((padded.rows(), padded.columns), (2, 3));
        assert_eq!(padded.ids, [1, 2, 3, 4, 9, 9]);
        assert_eq!(padded.mask, [1, 1, 1, 1, 0, 0]);
        assert_eq!(padded.types, [0; 0]);
    }

    #[test]
    fn types_are_there_once_one_is_not_zero() {
        let pair = Row::typed(vec![1, 2], vec![0, 1]);
        let rows = [Row::typed(vec![1, 2, 3], vec![0, 0, 0]), pair, Row::new(vec![4])];
        assert_eq!(Padded::new(rows.iter(), 9).types, [0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(Padded::new(rows[..1].iter(), 9).types, [0; 0]);
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in proptest::collection::vec(proptest::collection::vec(1u32.., 1..20), 0..10)) {
            let rows: Vec<_> = rows.into_iter().map(Row::new).collect();
            let padded = Padded::new(rows.iter(), 0);
            prop_assert_eq!(padded.ids.len(), padded.mask.len());
            let back: Vec<_> = padded
                .ids
                .chunks(padded.columns.max(1))
                .zip(&padded.lengths)
                .map(|(row, &length)| Row::new(row[..length].iter().map(|&id| id as u32).collect()))
                .collect();
            prop_assert_eq!(back, rows);
        }
    }
}
