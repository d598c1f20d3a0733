//! A device pipeline that always has the next batch: token ids go in, vectors come out.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use inference_pod::{
    backend::{Backend, RunError, Took},
    batch::row::Row,
    cuda::{network::OnGpu, pack::Packed, pipeline::Compute},
};

/// What a pipeline did.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Tokens of a batch, none of which fills.
    pub batch: usize,
    pub tokens_per_second: f64,
    /// The part of the device's time between batches, by its own clock. None if none of them was timed.
    pub idle: Option<f64>,
}

/// Gives batches of so many rows to all workers for so long; what ends before `warm_up` has passed does not count.
///
/// # Errors
/// If one of them fails.
pub fn saturate<C: Compute<Batch = Arc<Packed>>>(
    workers: &mut [OnGpu<C>],
    (rows, length): (usize, usize),
    warm_up: Duration,
    time: Duration,
) -> Result<Rate, RunError> {
    let rows: Vec<_> =
        (0..rows).map(|i| Row::new((0..length).map(|at| ((i + at) % 1000) as u32).collect())).collect();
    let rows: Vec<_> = rows.iter().collect();
    let start = Instant::now() + warm_up;
    let end = start + time;
    let run = |worker: &mut OnGpu<C>| {
        let mut ended = Vec::new();
        // Two at least, however long they take.
        while Instant::now() < end || ended.len() < 2 {
            worker.run(&rows)?;
            ended.push((Instant::now(), worker.took()));
        }
        Ok(ended)
    };
    let ended: Result<Vec<_>, RunError> = thread::scope(|scope| {
        let running: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| run(worker))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let ended: Vec<_> = ended?.into_iter().flatten().filter(|(at, _)| *at >= start).collect();
    // From the end of the first batch to that of the last: no batch counts in part, and no two end at once.
    let ends = ended.iter().map(|(at, _)| *at);
    let (seconds, batches) = match (ends.clone().min(), ends.max()) {
        (Some(first), Some(last)) if last > first => ((last - first).as_secs_f64(), ended.len() - 1),
        _ => (f64::NAN, 0),
    };
    let batch = rows.len() * length;
    let tokens_per_second = (batches * batch) as f64 / seconds;
    Ok(Rate { batch, tokens_per_second, idle: idle(ended.iter().filter_map(|(_, took)| took.as_ref())) })
}

/// The part of the device's time between batches, of those whose idle time before them is known.
fn idle<'a>(took: impl Iterator<Item = &'a Took>) -> Option<f64> {
    let known = took.filter_map(|took| Some((took.idle?.as_secs_f64(), took.compute.as_secs_f64())));
    let (idle, computing) = known.fold((0., 0.), |all, (idle, computing)| (all.0 + idle, all.1 + computing));
    let all = idle + computing;
    (all > 0.).then(|| idle / all)
}
