//! What the pod has taken on: a bounded number of requests, and of bytes that they and their answers take.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::effort::Effort;

/// Bytes that one permit stands for: as many permits as there are bytes would not fit.
const UNIT: usize = 1024;

/// Counts what is in hand.
#[derive(Clone, Debug)]
pub struct InHand {
    requests: Arc<Semaphore>,
    units: Arc<Semaphore>,
}

/// A request in hand, until it is dropped.
#[derive(Debug)]
pub struct Held {
    /// What it took until now.
    pub effort: Effort,
    _request: OwnedSemaphorePermit,
    units: Vec<OwnedSemaphorePermit>,
    of: Arc<Semaphore>,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pod has as much in hand as it takes on")]
pub struct Busy;

impl InHand {
    /// With room for so many requests and bytes.
    pub fn new(requests: usize, bytes: usize) -> Self {
        Self { requests: Arc::new(Semaphore::new(requests)), units: Arc::new(Semaphore::new(bytes / UNIT)) }
    }

    /// Takes on a request.
    ///
    /// # Errors
    /// If there are as many already as the pod takes on.
    pub fn take(&self) -> Result<Held, Busy> {
        let request = self.requests.clone().try_acquire_owned().map_err(|_| Busy)?;
        Ok(Held { effort: Effort::default(), _request: request, units: Vec::new(), of: self.units.clone() })
    }
}

impl Held {
    /// Makes room for so many bytes more.
    ///
    /// # Errors
    /// If there is none now.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Busy> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| Busy)?;
        self.units.push(self.of.clone().try_acquire_many_owned(units).map_err(|_| Busy)?);
        Ok(())
    }

    /// Bytes that there is room for, at least as many as were asked for.
    pub fn bytes(&self) -> usize {
        self.units.iter().map(|permit| permit.num_permits() * UNIT).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_their_bytes_are_bounded_and_come_free() {
        let in_hand = InHand::new(2, 4 * UNIT);
        let mut first = in_hand.take().expect("room");
        let mut second = in_hand.take().expect("room");
        assert_eq!(in_hand.take().err(), Some(Busy));
        assert_eq!(first.grow(3 * UNIT), Ok(()));
        assert_eq!(second.grow(UNIT + 1), Err(Busy));
        assert_eq!(second.grow(usize::MAX), Err(Busy));
        assert_eq!(second.grow(1), Ok(()));
        assert_eq!((first.bytes(), second.bytes()), (3 * UNIT, UNIT));
        assert_eq!(second.grow(1), Err(Busy));
        drop(first);
        assert_eq!(second.grow(3 * UNIT), Ok(()));
        assert!(in_hand.take().is_ok());
    }
}
