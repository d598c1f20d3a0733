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

/// A batch, and whether it tells how fast the network is.
struct Batch {
    entries: Vec<Entry<Arc<Row>>>,
    tells: bool,
}

/// The next batch, once there is one; `None` at the end.
fn next(shared: &Shared, lengths: Lengths) -> Option<Batch> {
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        let budget = state.allowance.budget(now);
        let entries = state.take(budget, lengths, now);
        shared.count(&state);
        if !entries.is_empty() {
            // What takes any lengths is fast with many tokens alone. A batch that left nothing behind may have had few.
            let tells = lengths == Lengths::Equal || !state.queue.is_empty();
            return Some(Batch { entries, tells });
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
    Batch { entries: batch, tells }: &Batch,
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
    if *tells {
        state.rate.observe(tokens, took);
    }
    if let Some(tokens) = too_large {
        state.allowance.shrink(tokens, start + took);
    }
    let waiters = state.land(batch);
    drop(state);
    let error = answer(waiters, results, (start, took))?;
    tracing::error!(%error, inputs = batch.len(), "a batch failed, or part of it");
    match error {
        RunError::Lost(why) => Some(why),
        RunError::Failed(_) | RunError::OutOfMemory(_) => None,
    }
}

/// Gives each result to those who wait for it. Tells the last failure, if there was one.
fn answer(
    waiters: Vec<Vec<Waiter>>,
    results: Vec<Result<Vec<f32>, RunError>>,
    (start, took): (Instant, Duration),
) -> Option<RunError> {
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
    failed
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use kembed_queue::{Budget, Rate, wire::Lane};
    use kembed_runtime::traces::Span;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{batch::Batcher, limits::Limits, metrics::Metrics};

    /// Runs a batch each time it may.
    struct Stub {
        lengths: Lengths,
        may: mpsc::Receiver<()>,
    }

    impl Backend for Stub {
        fn lengths(&self) -> Lengths {
            self.lengths
        }

        fn run(&mut self, batch: &[&Row]) -> Result<Vec<Vec<f32>>, RunError> {
            // At the end of a test it may too.
            let _ = self.may.recv();
            Ok(vec![vec![1.]; batch.len()])
        }
    }

    const TOKENS: usize = 40;

    /// The rate after one input alone, and after two that do not fit into one batch.
    fn rates(lengths: Lengths, seed: Rate) -> [u64; 2] {
        let limits = Limits { batch: Budget { tokens: 64, rows: 8 }, ..Limits::new(1) };
        let metrics = Metrics::new(&mut Registry::default());
        let (allow, may) = mpsc::channel();
        let stub = Box::new(Stub { lengths, may });
        let (batcher, _ended) = Batcher::start(vec![stub], seed, limits, metrics).expect("it starts");
        [1, 2].map(|inputs| {
            let rows = (0..inputs).map(|word| Row::new(vec![word; TOKENS])).collect();
            let now = Instant::now();
            let answer =
                batcher.submit(rows, Lane::Interactive, now + Duration::from_secs(600), now, Span::default());
            let answer = answer.expect("there is room");
            (0..inputs).for_each(|_| allow.send(()).expect("it runs"));
            answer.blocking_recv().expect("it is answered").expect("it runs");
            batcher.rate()
        })
    }

    /// Else a GPU with little to do would seem to be slow, and get neighbours that it does not need.
    #[test]
    fn a_small_batch_does_not_tell_how_fast_a_gpu_is_and_a_full_one_does() {
        let mut seed = Rate::default();
        // More than any test computes in a second, or takes.
        seed.observe(1 << 40, Duration::from_secs(1));
        let seeded = seed.per_second(1).expect("it was measured") as u64;
        let [alone, full] = rates(Lengths::Any, seed);
        assert_eq!(alone, seeded);
        assert_ne!(full, seeded, "the first of two had one behind it");
        let [alone, _] = rates(Lengths::Equal, seed);
        assert_ne!(alone, seeded, "a CPU is as fast with one");
    }
}
