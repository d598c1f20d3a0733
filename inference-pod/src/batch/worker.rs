//! A thread that runs the network. It seals a batch when it is free to run it, and not before.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use kembed_queue::Entry;
use kembed_runtime::threads::give_way;

use super::{Ended, Shared, Waiter, flights::Flights, pad::Padded, row::Row};
use crate::{
    backend::{Backend, RunError},
    metrics::{ByWorker, Seconds},
};

/// Runs batches until the queue is closed and empty.
pub(super) fn run(shared: &Shared, mut backend: Box<dyn Backend>, filler: u32, worker: usize) -> Ended {
    give_way();
    let busy = shared.metrics.busy.get_or_create(&ByWorker { worker }).clone();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        while let Some(batch) = next(shared) {
            serve(shared, backend.as_mut(), &batch, filler, &busy);
        }
    }));
    if ran.is_ok() {
        return Ended::Done;
    }
    // One thread that panicked ends them all. Dropping what waits tells its clients.
    shared.close();
    let mut state = shared.lock();
    state.queue.purge(Instant::now(), |_| true);
    state.flights = Flights::new();
    Ended::Panicked
}

/// The next batch, once there is one; `None` at the end.
fn next(shared: &Shared) -> Option<Vec<Entry<Arc<Row>>>> {
    let mut state = shared.lock();
    loop {
        let batch = state.take(shared.limits.batch, Instant::now());
        shared.count(&state);
        if !batch.is_empty() {
            return Some(batch);
        }
        if state.closed {
            return None;
        }
        state = shared.wake.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
    }
}

/// Runs a batch and brings its vectors.
fn serve(shared: &Shared, backend: &mut dyn Backend, batch: &[Entry<Arc<Row>>], filler: u32, busy: &Seconds) {
    let padded = Padded::new(batch.iter().map(|entry| &*entry.item), filler);
    let start = Instant::now();
    let result = backend.run(&padded);
    let took = start.elapsed();
    let tokens = padded.lengths.iter().sum::<usize>();
    let metrics = &shared.metrics;
    metrics.run.observe(took.as_secs_f64());
    busy.inc_by(took.as_secs_f64());
    metrics.batch_inputs.observe(padded.rows() as f64);
    metrics.batch_tokens.observe(tokens as f64);
    metrics.batch_fill.observe(shared.limits.batch.fill(padded.rows(), tokens as u64));
    metrics.tokens.inc_by(tokens as u64);
    for entry in batch {
        metrics.queue_wait.observe(start.duration_since(entry.since).as_secs_f64());
    }
    let mut state = shared.lock();
    state.rate.observe(tokens as u64, took);
    batch.iter().for_each(|entry| state.running[entry.lane as usize] -= u64::from(entry.tokens));
    let waiters: Vec<_> = batch.iter().map(|entry| state.flights.land(&entry.item)).collect();
    drop(state);
    for waiter in waiters.iter().flatten() {
        waiter.reply.ran(start, start + took);
    }
    match result {
        Ok(vectors) if vectors.len() == batch.len() => {
            waiters.into_iter().zip(vectors).for_each(|(waiters, vector)| bring(waiters, vector));
        }
        Ok(vectors) => {
            fail(&waiters, &RunError(format!("it gave {} vectors for {}", vectors.len(), batch.len())))
        }
        Err(error) => fail(&waiters, &error),
    }
}

/// Almost always one waits, and the vector needs no copy.
fn bring(mut waiters: Vec<Waiter>, vector: Vec<f32>) {
    let Some(last) = waiters.pop() else { return };
    for waiter in waiters {
        waiter.reply.bring(waiter.row, vector.clone());
    }
    last.reply.bring(last.row, vector);
}

fn fail(batch: &[Vec<Waiter>], error: &RunError) {
    tracing::error!(%error, inputs = batch.len(), "a batch failed");
    for waiter in batch.iter().flatten() {
        waiter.reply.fail(error.clone());
    }
}
