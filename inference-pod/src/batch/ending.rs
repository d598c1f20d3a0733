//! How several threads ended, told once.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::Ended;

/// Waits for the first thread that could not go on, or the last that was done.
pub(super) struct Ending {
    inner: Mutex<Inner>,
}

struct Inner {
    running: usize,
    /// Gone once it was told.
    teller: Option<oneshot::Sender<Ended>>,
}

impl Ending {
    pub(super) fn new(running: usize, teller: oneshot::Sender<Ended>) -> Self {
        Self { inner: Mutex::new(Inner { running, teller: Some(teller) }) }
    }

    /// Says how one thread ended, once each.
    pub(super) fn tell(&self, ended: Ended) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.running -= 1;
        if ended == Ended::Done && inner.running > 0 {
            return;
        }
        if let Some(teller) = inner.teller.take() {
            // Nobody listens any more when the whole pod goes down, and that is fine.
            let _ = teller.send(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_is_told() {
        let (teller, mut told) = oneshot::channel();
        let ending = Ending::new(2, teller);
        ending.tell(Ended::Done);
        assert!(told.try_recv().is_err());
        ending.tell(Ended::Done);
        assert_eq!(told.try_recv(), Ok(Ended::Done));
    }

    #[test]
    fn the_first_panic_is_told_at_once() {
        let (teller, mut told) = oneshot::channel();
        let ending = Ending::new(2, teller);
        ending.tell(Ended::Panicked);
        assert_eq!(told.try_recv(), Ok(Ended::Panicked));
        ending.tell(Ended::Done);
    }
}
