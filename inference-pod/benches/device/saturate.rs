//! A device pipeline that always has the next batch: token ids go in, vectors come out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use inference_pod::{
    backend::{Backend, RunError},
    batch::row::Row,
    cuda::{driver::Regions, fault::Fault, network::OnGpu, pack::Packed, pipeline::Compute},
};

use super::cuda::{Event, Events};

/// Batches after which one is surely over: more than a pipeline has slots.
const OVER: usize = 4;

/// Where a device's time went, by events on its compute stream: none of it is this program's clock.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    /// Milliseconds from the beginning of batches to their ends.
    pub computing: f64,
    /// From the end of each to the beginning of the next.
    pub idle: f64,
}

impl Spent {
    /// The part that was idle. None if nothing was measured.
    pub fn idle_part(self) -> Option<f64> {
        let all = self.computing + self.idle;
        (all > 0.).then(|| self.idle / all)
    }
}

/// A network, with an event before and one behind each of its batches.
pub struct Timed<C> {
    network: C,
    events: Option<Events>,
    stream: usize,
    /// The last ones, in their order.
    batches: VecDeque<[Event; 2]>,
    spent: Arc<Mutex<Spent>>,
}

impl<C> Timed<C> {
    /// Without events nothing is measured. Where the time went is added to `spent`.
    pub fn new(network: C, events: Option<Events>, stream: usize, spent: Arc<Mutex<Spent>>) -> Self {
        Self { network, events, stream, batches: VecDeque::new(), spent }
    }

    fn add(&mut self, events: &Events, batch: [Event; 2]) {
        self.batches.push_back(batch);
        while self.batches.len() > OVER + 1 {
            let ([begin, end], next) = (self.batches[0], self.batches[1][0]);
            if let (Some(computing), Some(idle)) = (events.between(begin, end), events.between(end, next)) {
                let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
                spent.computing += computing;
                spent.idle += idle;
            }
            self.batches.pop_front();
            events.give_back([begin, end]);
        }
    }
}

impl<C: Compute> Compute for Timed<C> {
    type Batch = C::Batch;

    fn enqueue(&mut self, batch: &C::Batch, regions: &Regions<'_>) -> Result<(), Fault> {
        let Some(events) = self.events.take() else { return self.network.enqueue(batch, regions) };
        let begin = events.record(self.stream);
        let asked = self.network.enqueue(batch, regions);
        if let (Some(begin), Ok(()), Some(end)) = (begin, &asked, events.record(self.stream)) {
            self.add(&events, [begin, end]);
        }
        self.events = Some(events);
        asked
    }
}

/// What a pipeline did.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Tokens of a batch, none of which fills.
    pub batch: usize,
    pub tokens_per_second: f64,
}

/// Gives batches of so many rows to all workers for so long; what ends before `warm_up` has passed does not count.
///
/// # Errors
/// If one of them fails.
pub fn saturate<C: Compute<Batch = Arc<Packed>>>(
    workers: &mut [OnGpu<C>],
    (rows, length): (usize, usize),
    (warm_up, time): (Duration, Duration),
    begins: impl FnOnce() + Send,
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
            ended.push(Instant::now());
        }
        Ok(ended)
    };
    let ended: Result<Vec<_>, RunError> = thread::scope(|scope| {
        let running: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| run(worker))).collect();
        thread::sleep(warm_up);
        begins();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let mut ended: Vec<_> = ended?.into_iter().flatten().filter(|at| *at >= start).collect();
    ended.sort_unstable();
    // From the end of the first batch to that of the last: no batch counts in part.
    let (seconds, batches) = match (ended.first(), ended.last()) {
        (Some(first), Some(last)) if last > first => ((*last - *first).as_secs_f64(), ended.len() - 1),
        _ => (f64::NAN, 0),
    };
    let batch = rows.len() * length;
    Ok(Rate { batch, tokens_per_second: (batches * batch) as f64 / seconds })
}
