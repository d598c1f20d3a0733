//! Running a batch whole, or in parts where it finds no memory.

use super::row::Row;
use crate::backend::{Backend, RunError};

/// What came of a batch.
pub(super) struct Attempt {
    /// For each row, in order.
    pub(super) results: Vec<Result<Vec<f32>, RunError>>,
    /// Tokens of the smallest part that found no memory, if one did.
    pub(super) too_large: Option<u64>,
}

/// Runs a batch. If there is not enough memory for it, its halves are run, and theirs, down to single rows: a row that
/// finds none even alone fails alone.
pub(super) fn run(backend: &mut dyn Backend, rows: &[&Row]) -> Attempt {
    match backend.run(rows) {
        Ok(vectors) if vectors.len() == rows.len() => {
            Attempt { results: vectors.into_iter().map(Ok).collect(), too_large: None }
        }
        Ok(vectors) => {
            let what = format!("it gave {} vectors for {}", vectors.len(), rows.len());
            Attempt { results: vec![Err(RunError::Failed(what)); rows.len()], too_large: None }
        }
        Err(RunError::OutOfMemory(_)) if rows.len() > 1 => {
            let (first, second) = rows.split_at(middle(rows));
            let (first, second) = (run(backend, first), run(backend, second));
            let smallest =
                [Some(tokens(rows)), first.too_large, second.too_large].into_iter().flatten().min();
            Attempt { results: [first.results, second.results].concat(), too_large: smallest }
        }
        Err(error) => {
            let too_large = matches!(error, RunError::OutOfMemory(_)).then(|| tokens(rows));
            Attempt { results: vec![Err(error); rows.len()], too_large }
        }
    }
}

/// Tokens of these rows.
pub(super) fn tokens(rows: &[&Row]) -> u64 {
    rows.iter().map(|row| row.ids.len() as u64).sum()
}

/// Where about half of the tokens are before, and at least one row on each side.
fn middle(rows: &[&Row]) -> usize {
    let half = tokens(rows) / 2;
    let mut before = 0;
    let rows_before = rows.iter().take_while(|row| {
        before += row.ids.len() as u64;
        before <= half
    });
    rows_before.count().clamp(1, rows.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Has room for so many tokens at once, and breaks after so many runs.
    struct Small {
        room: u64,
        runs: usize,
    }

    impl Backend for Small {
        fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
            let Some(left) = self.runs.checked_sub(1) else { return Err(RunError::Lost("broken".into())) };
            self.runs = left;
            if tokens(batch) > self.room {
                return Err(RunError::OutOfMemory("full".into()));
            }
            Ok(batch.iter().map(|row| vec![row.ids[0] as f32]).collect())
        }
    }

    fn rows(lengths: &[usize]) -> Vec<Row> {
        (1..).zip(lengths).map(|(i, &length)| Row::new(vec![i; length])).collect()
    }

    proptest! {
        #[test]
        fn what_fits_alone_is_run_and_what_does_not_fails_alone(
            lengths in proptest::collection::vec(1..60usize, 1..30),
            room in 1..400u64,
        ) {
            let rows = rows(&lengths);
            let rows: Vec<_> = rows.iter().collect();
            let mut backend = Small { room, runs: usize::MAX };
            let Attempt { results, too_large } = run(&mut backend, &rows);
            prop_assert_eq!(results.len(), rows.len());
            for (row, result) in rows.iter().zip(results) {
                let expected = if row.ids.len() as u64 <= room {
                    Ok(vec![row.ids[0] as f32])
                } else {
                    Err(RunError::OutOfMemory("full".into()))
                };
                prop_assert_eq!(result, expected);
            }
            prop_assert_eq!(too_large.is_some(), tokens(&rows) > room);
            prop_assert!(too_large.is_none_or(|tokens| tokens > room));
        }

        #[test]
        fn nothing_is_answered_after_a_loss(
            lengths in proptest::collection::vec(1..60usize, 1..30),
            room in 1..400u64,
            runs in 0..20usize,
        ) {
            let rows = rows(&lengths);
            let mut backend = Small { room, runs };
            let results = run(&mut backend, &rows.iter().collect::<Vec<_>>()).results;
            let first = results.iter().position(|result| matches!(result, Err(RunError::Lost(_))));
            let after = &results[first.unwrap_or(results.len())..];
            prop_assert!(after.iter().all(|result| matches!(result, Err(RunError::Lost(_)))));
        }
    }

    #[test]
    fn a_batch_is_halved_by_its_tokens() {
        let rows = rows(&[100, 1, 1, 1, 1]);
        assert_eq!(middle(&rows.iter().collect::<Vec<_>>()), 1);
        let rows = self::rows(&[1, 1, 1, 1, 100]);
        assert_eq!(middle(&rows.iter().collect::<Vec<_>>()), 4);
        let rows = self::rows(&[5; 8]);
        assert_eq!(middle(&rows.iter().collect::<Vec<_>>()), 4);
    }
}
