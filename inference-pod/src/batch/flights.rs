//! Identical inputs that are in hand at the same time, so that they are run once.

use std::{collections::HashMap, sync::Arc};

use super::row::Row;

/// Who waits for what is wanted of each input that waits or runs.
#[derive(Debug)]
pub(super) struct Flights<W> {
    waiters: HashMap<Arc<Row>, Vec<W>>,
}

impl<W> Flights<W> {
    pub(super) fn new() -> Self {
        Self { waiters: HashMap::new() }
    }

    /// Whether somebody waits for this input already.
    pub(super) fn has(&self, row: &Row) -> bool {
        self.waiters.contains_key(row)
    }

    /// Waits for an input. If nobody did before, the row is given back, to be run.
    pub(super) fn join(&mut self, row: Row, waiter: W) -> Option<Arc<Row>> {
        if let Some(waiters) = self.waiters.get_mut(&row) {
            waiters.push(waiter);
            return None;
        }
        let row = Arc::new(row);
        self.waiters.insert(row.clone(), vec![waiter]);
        Some(row)
    }

    /// Whether all that wait for an input are of that kind.
    pub(super) fn all(&self, row: &Row, is: impl Fn(&W) -> bool) -> bool {
        self.waiters.get(row).is_none_or(|waiters| waiters.iter().all(is))
    }

    /// Ends the wait for an input: those who waited.
    pub(super) fn land(&mut self, row: &Row) -> Vec<W> {
        self.waiters.remove(row).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::row::Wanted;

    fn row(ids: &[u32]) -> Row {
        Row::new(ids.to_vec())
    }

    #[test]
    fn the_first_runs_and_the_others_wait_with_it() {
        let mut flights = Flights::new();
        let first = flights.join(row(&[1, 2]), "first").expect("nobody waits yet");
        assert_eq!(*first, row(&[1, 2]));
        assert_eq!(flights.join(row(&[1, 2]), "second"), None);
        assert!(flights.join(row(&[2, 1]), "other").is_some());
        assert_eq!(flights.land(&first), ["first", "second"]);
        assert!(!flights.has(&row(&[1, 2])) && flights.has(&row(&[2, 1])));
        assert!(flights.join(row(&[1, 2]), "later").is_some(), "what has landed is run again");
    }

    #[test]
    fn the_same_ids_of_other_types_or_for_another_use_are_another_input() {
        let mut flights = Flights::new();
        let same = Row::typed(vec![1, 2], vec![0, 0]);
        let pair = Row::typed(vec![1, 2], vec![0, 1]);
        let whole = Row { wanted: Wanted::Tokens, ..row(&[1, 2]) };
        assert!(flights.join(row(&[1, 2]), ()).is_some());
        assert!(flights.join(same, ()).is_none());
        assert!(flights.join(pair, ()).is_some() && flights.join(whole, ()).is_some());
    }

    #[test]
    fn an_input_is_wanted_while_one_wants_it() {
        let mut flights = Flights::new();
        for gone in [true, false] {
            flights.join(row(&[1]), gone);
        }
        assert!(!flights.all(&row(&[1]), |gone| *gone));
        assert!(flights.all(&row(&[1]), |_| true));
        assert!(flights.all(&row(&[2]), |_| false), "nobody wants it");
    }
}
