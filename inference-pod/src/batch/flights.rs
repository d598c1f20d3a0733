//! Identical inputs that are in hand at the same time, so that they are run once.

use std::{collections::HashMap, sync::Arc};

/// Token ids of an input.
pub(super) type Ids = Arc<[u32]>;

/// Who waits for the vector of each input that waits or runs.
#[derive(Debug)]
pub(super) struct Flights<W> {
    waiters: HashMap<Ids, Vec<W>>,
}

impl<W> Flights<W> {
    pub(super) fn new() -> Self {
        Self { waiters: HashMap::new() }
    }

    /// Whether somebody waits for this input already.
    pub(super) fn has(&self, ids: &[u32]) -> bool {
        self.waiters.contains_key(ids)
    }

    /// Waits for an input. If nobody did before, the ids are given back, to be run.
    pub(super) fn join(&mut self, ids: Vec<u32>, waiter: W) -> Option<Ids> {
        if let Some(waiters) = self.waiters.get_mut(ids.as_slice()) {
            waiters.push(waiter);
            return None;
        }
        let ids = Ids::from(ids);
        self.waiters.insert(ids.clone(), vec![waiter]);
        Some(ids)
    }

    /// Whether all that wait for an input are of that kind.
    pub(super) fn all(&self, ids: &[u32], is: impl Fn(&W) -> bool) -> bool {
        self.waiters.get(ids).is_none_or(|waiters| waiters.iter().all(is))
    }

    /// Ends the wait for an input: those who waited.
    pub(super) fn land(&mut self, ids: &[u32]) -> Vec<W> {
        self.waiters.remove(ids).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_runs_and_the_others_wait_with_it() {
        let mut flights = Flights::new();
        let ids = flights.join(vec![1, 2], "first").expect("nobody waits yet");
        assert_eq!(&*ids, [1, 2]);
        assert_eq!(flights.join(vec![1, 2], "second"), None);
        assert!(flights.join(vec![2, 1], "other").is_some());
        assert_eq!(flights.land(&ids), ["first", "second"]);
        assert!(!flights.has(&[1, 2]) && flights.has(&[2, 1]));
        assert!(flights.join(vec![1, 2], "later").is_some(), "what has landed is run again");
    }

    #[test]
    fn an_input_is_wanted_while_one_wants_it() {
        let mut flights = Flights::new();
        for gone in [true, false] {
            flights.join(vec![1], gone);
        }
        assert!(!flights.all(&[1], |gone| *gone));
        assert!(flights.all(&[1], |_| true));
        assert!(flights.all(&[2], |_| false), "nobody wants it");
    }
}
