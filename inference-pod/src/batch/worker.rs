//! A thread that runs the network. It seals a batch when it is free to run it, and not before.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use kembed_queue::{Entry, Lengths};
use kembed_runtime::threads::give_way;

use super::{
    Ended, Shared, Waiter,
    attempt::{self, Attempt},
    flights::Flights,
    row::Row,
};
use crate::{
    backend::{Backend, RunError},
    metrics::{ByWorker, Seconds},
};

/// Runs batches until the queue is closed and empty, or the device is lost.
pub(super) fn run(shared: &Shared, mut backend: Box<dyn Backend>, worker: usize) -> Ended {
    give_way();
    let busy = shared.metrics.busy.get_or_create(&ByWorker { worker }).clone();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        while let Some(batch) = next(shared, backend.lengths()) {
            if let Some(lost) = serve(shared, backend.as_mut(), &batch, &busy) {
                return Ended::Lost(lost);
            }
        }
        Ended::Done
    }));
    let ended = ran.unwrap_or(Ended::Panicked);
    if ended != Ended::Done {
        abandon(shared);
    }
    ended
}

/// One thread that cannot go on ends them all. Dropping what waits tells its clients.
fn abandon(shared: &Shared) {
    shared.close();
    let mut state = shared.lock();
    state.queue.purge(Instant::now(), |_| true);
    state.flights = Flights::new();
}

/// The next batch, once there is one; `None` at the end.
fn next(shared: &Shared, lengths: Lengths) -> Option<Vec<Entry<Arc<Row>>>> {
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        let budget = state.allowance.budget(now);
        let batch = state.take(budget, lengths, now);
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

/// Runs a batch and brings its vectors. Tells why the device is lost, if it is.
fn serve(
    shared: &Shared,
    backend: &mut dyn Backend,
    batch: &[Entry<Arc<Row>>],
    busy: &Seconds,
) -> Option<String> {
    let rows: Vec<&Row> = batch.iter().map(|entry| &*entry.item).collect();
    let start = Instant::now();
    let Attempt { results, too_large } = attempt::run(backend, &rows);
    let took = start.elapsed();
    if let Some(by_device) = backend.took() {
        shared.metrics.device_took(&by_device);
    }
    let tokens = attempt::tokens(&rows);
    measure(shared, batch, tokens, (start, took), busy);
    let mut state = shared.lock();
    state.rate.observe(tokens, took);
    if let Some(tokens) = too_large {
        state.allowance.shrink(tokens, start + took);
    }
    batch.iter().for_each(|entry| state.running[entry.lane as usize] -= u64::from(entry.tokens));
    let waiters: Vec<_> = batch.iter().map(|entry| state.flights.land(&entry.item)).collect();
    drop(state);
    let mut failed = None;
    for (waiters, result) in waiters.into_iter().zip(results) {
        waiters.iter().for_each(|waiter| waiter.reply.ran(start, start + took));
        match result {
            Ok(vector) => bring(waiters, vector),
            Err(error) => {
                waiters.iter().for_each(|waiter| waiter.reply.fail(error.clone()));
                failed = Some(error);
            }
        }
    }
    let error = failed?;
    tracing::error!(%error, inputs = batch.len(), "a batch failed, or part of it");
    match error {
        RunError::Lost(why) => Some(why),
        RunError::Failed(_) | RunError::OutOfMemory(_) => None,
    }
}

fn measure(
    shared: &Shared,
    batch: &[Entry<Arc<Row>>],
    tokens: u64,
    (start, took): (Instant, Duration),
    busy: &Seconds,
) {
    let metrics = &shared.metrics;
    metrics.run.observe(took.as_secs_f64());
    busy.inc_by(took.as_secs_f64());
    metrics.batch_inputs.observe(batch.len() as f64);
    metrics.batch_tokens.observe(tokens as f64);
    metrics.batch_fill.observe(shared.limits.batch.fill(batch.len(), tokens));
    metrics.tokens.inc_by(tokens);
    for entry in batch {
        metrics.queue_wait.observe(start.duration_since(entry.since).as_secs_f64());
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
