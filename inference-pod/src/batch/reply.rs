//! The answer to one request, put together from batches and given once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{Ran, way::Way};
use crate::backend::RunError;

/// Collects the vectors of one request's inputs.
pub(super) struct Collector {
    inner: Mutex<Inner>,
}

struct Inner {
    vectors: Vec<Vec<f32>>,
    missing: usize,
    way: Way,
    /// Gone once the answer was given.
    answer: Option<oneshot::Sender<Result<Ran, RunError>>>,
}

impl Collector {
    pub(super) fn new(inputs: usize, way: Way) -> (Arc<Self>, oneshot::Receiver<Result<Ran, RunError>>) {
        let (answer, receiver) = oneshot::channel();
        let inner = Inner { vectors: vec![Vec::new(); inputs], missing: inputs, way, answer: Some(answer) };
        (Arc::new(Self { inner: Mutex::new(inner) }), receiver)
    }

    /// Whether nobody waits for the answer, or it was given already.
    pub(super) fn is_cancelled(&self) -> bool {
        self.lock().answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Says that an input ran, before its vector is brought.
    pub(super) fn ran(&self, start: Instant, end: Instant) {
        self.lock().way.ran(start, end);
    }

    /// Brings the vector of one input, once each; the last one gives the answer.
    pub(super) fn bring(&self, row: usize, vector: Vec<f32>) {
        let mut inner = self.lock();
        inner.vectors[row] = vector;
        inner.missing -= 1;
        if inner.missing == 0 {
            let (queue, run) = inner.way.tell();
            let vectors = std::mem::take(&mut inner.vectors);
            inner.answer(Ok(Ran { vectors, queue, run }));
        }
    }

    /// Answers that it cannot be done. What is brought later goes nowhere.
    pub(super) fn fail(&self, error: RunError) {
        self.lock().answer(Err(error));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn answer(&mut self, ran: Result<Ran, RunError>) {
        if let Some(answer) = self.answer.take() {
            // The client may have gone just now.
            let _ = answer.send(ran);
        }
    }
}

#[cfg(test)]
mod tests {
    use kembed_runtime::traces::Span;

    use super::*;

    fn collector(inputs: usize) -> (Arc<Collector>, oneshot::Receiver<Result<Ran, RunError>>) {
        Collector::new(inputs, Way::new(Span::default(), Instant::now()))
    }

    #[test]
    fn the_last_vector_gives_the_answer_in_order() {
        let (collector, mut receiver) = collector(2);
        collector.bring(1, vec![1.]);
        assert!(receiver.try_recv().is_err());
        collector.bring(0, vec![0.]);
        let ran = receiver.try_recv().expect("the answer").expect("vectors");
        assert_eq!(ran.vectors, [[0.], [1.]]);
    }

    #[test]
    fn a_failure_is_answered_once_and_cancels_the_rest() {
        let (collector, mut receiver) = collector(2);
        collector.fail(RunError::Failed("broken".into()));
        assert!(collector.is_cancelled());
        collector.bring(0, vec![0.]);
        collector.fail(RunError::Failed("again".into()));
        let error = receiver.try_recv().expect("the answer").expect_err("it failed");
        assert_eq!(error, RunError::Failed("broken".into()));
    }

    #[test]
    fn a_client_that_left_is_noticed() {
        let (collector, receiver) = collector(1);
        assert!(!collector.is_cancelled());
        drop(receiver);
        assert!(collector.is_cancelled());
    }
}
