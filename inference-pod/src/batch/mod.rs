//! From inputs that wait to batches that run: one queue, and the threads that run the network.

mod ending;
pub mod pad;
mod reply;
mod worker;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kembed_queue::{Fifo, Refusal};
use tokio::sync::oneshot;

use self::{ending::Ending, reply::Collector};
use crate::{
    backend::{Backend, RunError},
    limits::Limits,
    metrics::Metrics,
};

/// The vectors of a request's inputs, in order.
pub type Vectors = Result<Vec<Vec<f32>>, RunError>;

/// Takes inputs in. Dropping it lets the threads finish what waits and end.
pub struct Batcher {
    shared: Arc<Shared>,
}

/// Why inputs were not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is no room, now or ever.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A thread has ended.
    #[error("the pod is stopping")]
    Stopped,
}

/// How the threads ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// They were told to.
    Done,
    /// The network's code panicked. What the process holds can no longer be trusted.
    Panicked,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    limits: Limits,
    metrics: Metrics,
}

struct State {
    queue: Fifo<Sequence>,
    closed: bool,
}

/// One input.
struct Sequence {
    ids: Vec<u32>,
    reply: Arc<Collector>,
    /// Its place among the inputs of its request.
    row: usize,
}

impl Sequence {
    fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }
}

impl Batcher {
    /// Starts a thread for each backend. `filler` is the token that fills short rows. The receiver tells how they
    /// ended: when the first one panics, or when the last one is done.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        backends: Vec<Box<dyn Backend>>,
        filler: u32,
        limits: Limits,
        metrics: Metrics,
    ) -> std::io::Result<(Self, oneshot::Receiver<Ended>)> {
        let state = Mutex::new(State { queue: Fifo::new(limits.queue), closed: false });
        let shared = Arc::new(Shared { state, wake: Condvar::new(), limits, metrics });
        let (ended, receiver) = oneshot::channel();
        let ending = Arc::new(Ending::new(backends.len(), ended));
        let batcher = Self { shared };
        for (i, backend) in backends.into_iter().enumerate() {
            let (shared, ending) = (batcher.shared.clone(), ending.clone());
            std::thread::Builder::new()
                .name(format!("network-{i}"))
                .spawn(move || ending.tell(worker::run(&shared, backend, filler)))?;
        }
        Ok((batcher, receiver))
    }

    /// Queues the inputs of one request: all or none. Dropping the receiver cancels those that have not started.
    ///
    /// # Errors
    /// If there is no room.
    pub fn submit(
        &self,
        inputs: Vec<Vec<u32>>,
        deadline: Instant,
        now: Instant,
    ) -> Result<oneshot::Receiver<Vectors>, SubmitError> {
        let tokens = inputs.iter().map(|ids| ids.len() as u64).sum();
        let mut state = self.shared.lock();
        if state.closed {
            return Err(SubmitError::Stopped);
        }
        if let Err(Refusal::Full { .. }) = state.queue.room_for(inputs.len(), tokens) {
            state.queue.purge(now, Sequence::is_cancelled);
        }
        state.queue.room_for(inputs.len(), tokens)?;
        let (collector, receiver) = Collector::new(inputs.len());
        for (row, ids) in inputs.into_iter().enumerate() {
            let tokens = ids.len() as u32;
            let sequence = Sequence { ids, reply: collector.clone(), row };
            state.queue.push(sequence, tokens, Some(deadline), now)?;
        }
        self.shared.count(&state);
        drop(state);
        self.shared.wake.notify_all();
        Ok(receiver)
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
        self.metrics.queue_inputs.set(state.queue.len() as i64);
        self.metrics.queue_tokens.set(state.queue.tokens() as i64);
    }
}
