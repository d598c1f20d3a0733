//! Batches that a GPU is given before it serves, so that no client waits for what libraries do when they first see a size: they
//! load kernels, choose among them, and take memory, for which they may wait until the device is quiet.

use std::time::{Duration, Instant};

use crate::{
    backend::{Backend, RunError},
    batch::row::Row,
    export::packed::rounded_up,
};

/// Tokens of most rows, where the model takes as many.
pub const USUAL: usize = 128;

/// Batches between two lines in the log.
const PROGRESS: usize = 32;

/// How large batches may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Tokens of a batch.
    pub tokens: usize,
    /// Rows of a batch.
    pub rows: usize,
    /// Tokens of a row.
    pub longest: usize,
}

impl Largest {
    /// The lengths of the rows of a batch that takes the most memory: as many rows as there may be, and a longest one.
    fn lengths(self) -> Vec<usize> {
        let longest = self.longest.min(self.tokens);
        let left = self.tokens - longest;
        let short = self.rows.saturating_sub(1).min(left);
        let length = left.checked_div(short).unwrap_or_default().min(longest);
        std::iter::once(longest).chain(std::iter::repeat_n(length, short)).collect()
    }

    /// A batch of each size that sizes are rounded up to, and then a row of each such length alone. The largest first, so that
    /// the others find their memory taken already.
    fn others(self) -> Vec<Vec<usize>> {
        let length = self.longest.clamp(1, USUAL);
        let of_tokens = |tokens: usize| {
            let whole = std::iter::repeat_n(length, tokens / length);
            whole.chain([tokens % length].into_iter().filter(|&rest| rest > 0)).collect::<Vec<_>>()
        };
        let batches = sizes(self.tokens).map(of_tokens).filter(|lengths| lengths.len() <= self.rows);
        batches.chain(sizes(self.longest.min(self.tokens)).map(|length| vec![length])).collect()
    }
}

/// What is rounded up to another size each, the largest first.
fn sizes(most: usize) -> impl Iterator<Item = usize> {
    let mut sizes = Vec::new();
    let mut next = 1;
    while next <= most {
        sizes.push(rounded_up(next).min(most));
        next = rounded_up(next) + 1;
    }
    sizes.into_iter().rev()
}

/// Runs them until they are done or that time has passed. Tells how many tokens there is memory for: fewer than was thought if
/// the batch that takes the most did not find it, and none if there is not enough for a longest input.
///
/// # Errors
/// If the device fails.
pub fn warm(
    backend: &mut dyn Backend,
    mut largest: Largest,
    patience: Duration,
) -> Result<Option<usize>, RunError> {
    let start = Instant::now();
    loop {
        match run(backend, &largest.lengths()) {
            Ok(()) => break,
            Err(RunError::OutOfMemory(_)) if largest.tokens > largest.longest => {
                largest.tokens = (largest.tokens / 2).max(largest.longest);
            }
            Err(RunError::OutOfMemory(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let others = largest.others();
    for (done, lengths) in others.iter().enumerate() {
        let (left, took) = (others.len() - done, start.elapsed().as_secs_f64());
        if start.elapsed() >= patience {
            tracing::warn!(left, took, "not all sizes of batches are warmed up, for want of time");
            break;
        }
        if done % PROGRESS == 0 {
            tracing::info!(left, took, "warming up");
        }
        match run(backend, lengths) {
            // It will be run in halves.
            Err(RunError::OutOfMemory(why)) => tracing::warn!(why, "a smaller batch found no memory"),
            ran => ran?,
        }
    }
    Ok(Some(largest.tokens))
}

fn run(backend: &mut dyn Backend, lengths: &[usize]) -> Result<(), RunError> {
    // Any words will do that every vocabulary has.
    let rows: Vec<_> = lengths.iter().enumerate().map(|(i, &n)| Row::new(vec![i as u32 % 8; n])).collect();
    backend.run(&rows.iter().collect::<Vec<_>>()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{cuda::pack::Packed, pooling::Pooling};

    const FOREVER: Duration = Duration::from_secs(3600);

    /// Has room for so many tokens and rows at once, and notes what it was given.
    struct Small {
        room: usize,
        seen: Vec<Vec<usize>>,
    }

    impl Backend for Small {
        fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
            self.seen.push(batch.iter().map(|row| row.ids.len()).collect());
            if self.seen.last().is_some_and(|lengths| lengths.iter().sum::<usize>() > self.room) {
                return Err(RunError::OutOfMemory("full".into()));
            }
            Ok(Vec::new())
        }
    }

    proptest! {
        #[test]
        fn every_size_that_clients_can_ask_for_was_seen(
            (tokens, rows, longest) in (1..3000usize, 1..64usize, 1..600usize),
            lengths in proptest::collection::vec(1..600usize, 1..30),
        ) {
            let largest = Largest { tokens: tokens.max(longest), rows, longest };
            let mut backend = Small { room: usize::MAX, seen: Vec::new() };
            prop_assert_eq!(warm(&mut backend, largest, FOREVER), Ok(Some(largest.tokens)));
            let all = largest.tokens;
            for lengths in &backend.seen {
                prop_assert!(lengths.len() <= rows && lengths.iter().sum::<usize>() <= all);
                prop_assert!(lengths.iter().all(|length| (1..=longest).contains(length)));
            }
            let packed = |lengths: &[usize]| Packed::new(lengths, Pooling::Mean).expect("it is known how");
            let seen: BTreeSet<_> = backend.seen.iter().map(|lengths| packed(lengths).tokens()).collect();
            let fits = lengths.len() <= rows && lengths.iter().all(|length| *length <= longest);
            // With few rows not every size can be made of usual ones.
            if fits && lengths.iter().sum::<usize>() <= all && all.div_ceil(longest.min(USUAL)) <= rows {
                prop_assert!(seen.contains(&packed(&lengths).tokens()), "{lengths:?}");
            }
            let alone: BTreeSet<_> =
                backend.seen.iter().filter(|l| l.len() == 1).map(|l| rounded_up(l[0])).collect();
            prop_assert!((1..=longest).all(|length| alone.contains(&rounded_up(length))));
        }
    }

    #[test]
    fn the_largest_is_first_and_there_are_not_many() {
        let largest = Largest { tokens: 32_768, rows: 1024, longest: 512 };
        let mut backend = Small { room: usize::MAX, seen: Vec::new() };
        assert_eq!(warm(&mut backend, largest, FOREVER), Ok(Some(32_768)));
        assert_eq!(backend.seen[0].len(), 1024);
        assert_eq!(backend.seen[0].iter().max(), Some(&512));
        assert!(backend.seen[0].iter().sum::<usize>() > 32_768 - 1024);
        assert_eq!(backend.seen[1], [128; 256]);
        assert!((100..150).contains(&backend.seen.len()), "{}", backend.seen.len());
    }

    #[test]
    fn there_may_be_less_memory_than_was_thought() {
        let largest = Largest { tokens: 4096, rows: 64, longest: 512 };
        for (room, expected) in [(1500, Some(1024)), (511, None), (512, Some(512))] {
            let mut backend = Small { room, seen: Vec::new() };
            assert_eq!(warm(&mut backend, largest, FOREVER), Ok(expected), "{room}");
        }
    }

    #[test]
    fn it_ends_in_time_and_the_largest_was_seen() {
        let largest = Largest { tokens: 4096, rows: 64, longest: 512 };
        let mut backend = Small { room: usize::MAX, seen: Vec::new() };
        assert_eq!(warm(&mut backend, largest, Duration::ZERO), Ok(Some(4096)));
        assert_eq!(backend.seen.len(), 1);
    }

    #[test]
    fn a_device_that_fails_is_not_warmed_on() {
        struct Broken;
        impl Backend for Broken {
            fn run(&mut self, _: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
                Err(RunError::Lost("gone".into()))
            }
        }
        let largest = Largest { tokens: 64, rows: 4, longest: 16 };
        assert_eq!(warm(&mut Broken, largest, FOREVER), Err(RunError::Lost("gone".into())));
    }
}
