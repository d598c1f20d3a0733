//! From inputs that wait to batches that run: one queue, and the threads that run the network.

mod allowance;
mod attempt;
mod ending;
mod flights;
pub mod pad;
mod reply;
pub mod row;
mod way;
mod worker;

use std::{
    collections::HashSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kembed_queue::{Budget, Entry, Lengths, Queue, Rate, Refusal, Work, wire::Lane};
use kembed_runtime::traces::Span;
use tokio::sync::oneshot;

use self::{allowance::Allowance, ending::Ending, flights::Flights, reply::Collector, row::Row, way::Way};
use crate::{
    backend::{Backend, RunError},
    limits::Limits,
    metrics::Metrics,
};

/// What became of the inputs of a request.
#[derive(Debug)]
pub struct Ran {
    /// The vectors of the inputs, in order.
    pub vectors: Vec<Vec<f32>>,
    /// From queued until the first of them ran.
    pub queue: Duration,
    /// From then until the last had run.
    pub run: Duration,
}

/// Takes inputs in. Dropping it lets the threads finish what waits and end.
pub struct Batcher {
    shared: Arc<Shared>,
}

/// Why inputs were not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is no room now, or never for so much.
    #[error("{refusal}")]
    NoRoom {
        /// What the queue says.
        refusal: Refusal,
        /// How long what waits will take, once that is known.
        wait: Option<Duration>,
    },
    /// There is room, and no time: it would be done after its deadline.
    #[error("what waits before this request takes so long that its deadline would pass")]
    Hopeless {
        /// How long that takes.
        wait: Duration,
    },
    /// A thread has ended.
    #[error("the pod is stopping")]
    Stopped,
}

/// How the threads ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// They were told to.
    Done,
    /// The network's code panicked. What the process holds can no longer be trusted.
    Panicked,
    /// What the network runs on is lost, for this reason. The process can do nothing more.
    Lost(String),
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    limits: Limits,
    metrics: Metrics,
}

struct State {
    /// What waits. Whether an input is still wanted, those know who wait for it.
    queue: Queue<Arc<Row>>,
    flights: Flights<Waiter>,
    rate: Rate,
    allowance: Allowance,
    /// Tokens that run, of each lane.
    running: [u64; 2],
    workers: usize,
    closed: bool,
}

/// Whom the vector of an input is for.
struct Waiter {
    reply: Arc<Collector>,
    /// The input's place in its request.
    row: usize,
    deadline: Instant,
}

impl Waiter {
    fn is_over(&self, now: Instant) -> bool {
        self.deadline <= now || self.reply.is_cancelled()
    }
}

impl Batcher {
    /// Starts a thread for each backend. `rate` is how fast one of them was seen to be. The receiver tells how they ended:
    /// when the first one panics or loses its device, or when the last one is done.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        backends: Vec<Box<dyn Backend>>,
        rate: Rate,
        limits: Limits,
        metrics: Metrics,
    ) -> std::io::Result<(Self, oneshot::Receiver<Ended>)> {
        let state = State {
            queue: Queue::new(limits.queue),
            flights: Flights::new(),
            rate,
            allowance: Allowance::new(limits.batch),
            running: [0; 2],
            workers: backends.len(),
            closed: false,
        };
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { state, wake: Condvar::new(), limits, metrics });
        let (ended, receiver) = oneshot::channel();
        let ending = Arc::new(Ending::new(backends.len(), ended));
        let batcher = Self { shared };
        for (i, backend) in backends.into_iter().enumerate() {
            let (shared, ending) = (batcher.shared.clone(), ending.clone());
            std::thread::Builder::new()
                .name(format!("network-{i}"))
                .spawn(move || ending.tell(worker::run(&shared, backend, i)))?;
        }
        Ok((batcher, receiver))
    }

    /// Queues the inputs of one request: all or none. What is in hand already, for whomever, is not run again.
    /// Dropping the receiver cancels those that have not started.
    ///
    /// # Errors
    /// If there is no room, or no time.
    pub fn submit(
        &self,
        inputs: Vec<Row>,
        lane: Lane,
        deadline: Instant,
        now: Instant,
        span: Span,
    ) -> Result<oneshot::Receiver<Result<Ran, RunError>>, SubmitError> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(SubmitError::Stopped);
        }
        state.make_room(&inputs, lane, deadline, now)?;
        let (collector, receiver) = Collector::new(inputs.len(), Way::new(span, now));
        let one = inputs.len() == 1;
        for (i, input) in inputs.into_iter().enumerate() {
            let waiter = Waiter { reply: collector.clone(), row: i, deadline };
            if let Some(input) = state.flights.join(input, lane, waiter) {
                let tokens = input.ids.len() as u32;
                let pushed = state.queue.push(input, tokens, lane, None, now);
                pushed.map_err(|refusal| state.no_room(refusal))?;
            } else {
                self.shared.metrics.joined.inc();
            }
        }
        self.shared.count(&state);
        drop(state);
        // A thread that is woken for nothing takes time from the one that has work.
        if one {
            self.shared.wake.notify_one()
        } else {
            self.shared.wake.notify_all()
        }
        Ok(receiver)
    }

    /// Tokens of a lane that wait or run.
    pub fn in_hand(&self, lane: Lane) -> u64 {
        let state = self.shared.lock();
        state.queue.load(lane).tokens + state.running[lane as usize]
    }

    /// Tokens a second that all threads together compute while they have enough to do; 0 before it was measured.
    pub fn rate(&self) -> u64 {
        let state = self.shared.lock();
        state.rate.per_second(state.workers).unwrap_or_default() as u64
    }
}

impl State {
    /// Sees that those of the inputs that must be run can be queued, and run in time.
    fn make_room(
        &mut self,
        inputs: &[Row],
        lane: Lane,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), SubmitError> {
        let new: HashSet<&Row> = inputs.iter().filter(|input| !self.flights.has(input, lane)).collect();
        let tokens = new.iter().map(|input| input.ids.len() as u64).sum();
        let work = Work { ahead: 0, tokens, parts: new.len() };
        let patience = deadline.saturating_duration_since(now);
        let fits = self.fits(work, lane, patience);
        if let Ok(()) | Err(SubmitError::NoRoom { refusal: Refusal::TooLarge { .. }, .. }) = fits {
            return fits;
        }
        self.purge(now);
        self.fits(work, lane, patience)
    }

    /// Whether there is room and time for work behind what waits now.
    fn fits(&self, work: Work, lane: Lane, patience: Duration) -> Result<(), SubmitError> {
        if work.parts == 0 {
            return Ok(());
        }
        let work = Work { ahead: self.queue.ahead_of(lane), ..work };
        self.queue.room_for(work.parts, work.tokens).map_err(|refusal| self.no_room(refusal))?;
        let late = self.rate.too_late(work, self.workers, patience);
        late.map_or(Ok(()), |wait| Err(SubmitError::Hopeless { wait }))
    }

    fn no_room(&self, refusal: Refusal) -> SubmitError {
        SubmitError::NoRoom { refusal, wait: self.rate.time_for(self.queue.tokens(), self.workers) }
    }

    /// The next batch, without what nobody wants any more.
    fn take(&mut self, budget: Budget, lengths: Lengths, now: Instant) -> Vec<Entry<Arc<Row>>> {
        let taken = self.queue.take(budget, lengths, now, self.flights.unwanted(now));
        self.forget(&taken.dropped);
        taken.batch.iter().for_each(|entry| self.running[entry.lane as usize] += u64::from(entry.tokens));
        taken.batch
    }

    /// A batch has run: those who wait for each of its inputs.
    fn land(&mut self, batch: &[Entry<Arc<Row>>]) -> Vec<Vec<Waiter>> {
        batch.iter().for_each(|entry| self.running[entry.lane as usize] -= u64::from(entry.tokens));
        batch.iter().map(|entry| self.flights.land(&entry.item, entry.lane)).collect()
    }

    fn purge(&mut self, now: Instant) {
        let dropped = self.queue.purge(now, self.flights.unwanted(now));
        self.forget(&dropped);
    }

    /// Dropping those who wait tells their clients.
    fn forget(&mut self, dropped: &[Entry<Arc<Row>>]) {
        for entry in dropped {
            self.flights.land(&entry.item, entry.lane);
        }
    }
}

impl Flights<Waiter> {
    /// Whether nobody wants an input any more that waits.
    fn unwanted(&self, now: Instant) -> impl Fn(&Entry<Arc<Row>>) -> bool {
        move |entry| self.all(&entry.item, entry.lane, |waiter| waiter.is_over(now))
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// A panic elsewhere leaves the queue as it was between two calls: whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nothing in any more, and tells the threads that wait.
    fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    fn count(&self, state: &State) {
        for lane in [Lane::Interactive, Lane::Bulk] {
            let load = state.queue.load(lane);
            self.metrics.queue_inputs.of(lane).set(load.items as i64);
            self.metrics.queue_tokens.of(lane).set(load.tokens as i64);
        }
    }
}
