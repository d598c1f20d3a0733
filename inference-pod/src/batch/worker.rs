//! A thread that runs the network. It seals a batch when it is free to run it, and not before.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use kembed_queue::Entry;

use super::{Ended, Sequence, Shared, pad::Padded};
use crate::backend::{Backend, RunError};

/// Runs batches until the queue is closed and empty.
pub(super) fn run(shared: &Shared, mut backend: Box<dyn Backend>, filler: u32) -> Ended {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        while let Some(batch) = next(shared) {
            serve(shared, backend.as_mut(), &batch, filler);
        }
    }));
    if ran.is_ok() {
        return Ended::Done;
    }
    // One thread that panicked ends them all. Dropping what waits tells its clients.
    shared.close();
    shared.lock().queue.purge(Instant::now(), |_| true);
    Ended::Panicked
}

/// The next batch, once there is one; `None` at the end.
fn next(shared: &Shared) -> Option<Vec<Entry<Sequence>>> {
    let mut state = shared.lock();
    loop {
        let taken = state.queue.take(shared.limits.batch, Instant::now(), Sequence::is_cancelled);
        shared.count(&state);
        if !taken.batch.is_empty() {
            return Some(taken.batch);
        }
        if state.closed {
            return None;
        }
        state = shared.wake.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

fn serve(shared: &Shared, backend: &mut dyn Backend, batch: &[Entry<Sequence>], filler: u32) {
    let padded = Padded::new(batch.iter().map(|entry| entry.item.ids.as_slice()), filler);
    let start = Instant::now();
    let result = backend.run(&padded);
    let metrics = &shared.metrics;
    metrics.run.observe(start.elapsed().as_secs_f64());
    metrics.batch_inputs.observe(padded.rows() as f64);
    metrics.batch_tokens.observe(padded.lengths.iter().sum::<usize>() as f64);
    for entry in batch {
        metrics.queue_wait.observe(start.duration_since(entry.since).as_secs_f64());
    }
    match result {
        Ok(vectors) if vectors.len() == batch.len() => {
            for (Entry { item, .. }, vector) in batch.iter().zip(vectors) {
                item.reply.bring(item.row, vector);
            }
        }
        Ok(vectors) => {
            fail(batch, RunError(format!("it gave {} vectors for {}", vectors.len(), batch.len())))
        }
        Err(error) => fail(batch, error),
    }
}

fn fail(batch: &[Entry<Sequence>], error: RunError) {
    tracing::error!(%error, inputs = batch.len(), "a batch failed");
    for entry in batch {
        entry.item.reply.fail(error.clone());
    }
}
