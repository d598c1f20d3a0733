//! Identical inputs that are in hand at the same time, so that they are run once.

use std::{collections::HashMap, sync::Arc};

use kembed_queue::wire::Lane;

use super::row::Row;

/// Who waits for what is wanted of each input that waits or runs. What is bulk waits with what is interactive too, and not
/// the other way round: it would have to wait for the turn of bulk.
#[derive(Debug)]
pub(super) struct Flights<W> {
    /// By the lane in which the input is queued.
    waiters: [HashMap<Arc<Row>, Vec<W>>; 2],
}

impl<W> Flights<W> {
    pub(super) fn new() -> Self {
        Self { waiters: [HashMap::new(), HashMap::new()] }
    }

    /// Whether an input of this lane need not be run, for somebody waits for it already.
    pub(super) fn has(&self, row: &Row, lane: Lane) -> bool {
        joinable(lane).iter().any(|&lane| self.waiters[lane as usize].contains_key(row))
    }

    /// Waits for an input. If it is not in hand yet, the row is given back, to be run in this lane.
    pub(super) fn join(&mut self, row: Row, lane: Lane, waiter: W) -> Option<Arc<Row>> {
        for &lane in joinable(lane) {
            if let Some(waiters) = self.waiters[lane as usize].get_mut(&row) {
                waiters.push(waiter);
                return None;
            }
        }
        let row = Arc::new(row);
        self.waiters[lane as usize].insert(row.clone(), vec![waiter]);
        Some(row)
    }

    /// Whether all that wait for an input that is queued in this lane are of that kind.
    pub(super) fn all(&self, row: &Row, lane: Lane, is: impl Fn(&W) -> bool) -> bool {
        self.waiters[lane as usize].get(row).is_none_or(|waiters| waiters.iter().all(is))
    }

    /// Ends the wait for an input that was queued in this lane: those who waited.
    pub(super) fn land(&mut self, row: &Row, lane: Lane) -> Vec<W> {
        self.waiters[lane as usize].remove(row).unwrap_or_default()
    }
}

/// The lanes in which an input does as well that is asked for in this one.
fn joinable(lane: Lane) -> &'static [Lane] {
    match lane {
        Lane::Interactive => &[Lane::Interactive],
        Lane::Bulk => &[Lane::Interactive, Lane::Bulk],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::row::Wanted;

    const LANE: Lane = Lane::Interactive;

    fn row(ids: &[u32]) -> Row {
        Row::new(ids.to_vec())
    }

    #[test]
    fn the_first_runs_and_the_others_wait_with_it() {
        let mut flights = Flights::new();
        let first = flights.join(row(&[1, 2]), LANE, "first").expect("nobody waits yet");
        assert_eq!(*first, row(&[1, 2]));
        assert_eq!(flights.join(row(&[1, 2]), LANE, "second"), None);
        assert!(flights.join(row(&[2, 1]), LANE, "other").is_some());
        assert_eq!(flights.land(&first, LANE), ["first", "second"]);
        assert!(!flights.has(&row(&[1, 2]), LANE) && flights.has(&row(&[2, 1]), LANE));
        assert!(flights.join(row(&[1, 2]), LANE, "later").is_some(), "what has landed is run again");
    }

    #[test]
    fn the_same_ids_of_other_types_or_for_another_use_are_another_input() {
        let mut flights = Flights::new();
        let same = Row::typed(vec![1, 2], vec![0, 0]);
        let pair = Row::typed(vec![1, 2], vec![0, 1]);
        let whole = Row { wanted: Wanted::Tokens, ..row(&[1, 2]) };
        assert!(flights.join(row(&[1, 2]), LANE, ()).is_some());
        assert!(flights.join(same, LANE, ()).is_none());
        assert!(flights.join(pair, LANE, ()).is_some() && flights.join(whole, LANE, ()).is_some());
    }

    #[test]
    fn nobody_waits_for_the_turn_of_bulk_who_need_not() {
        let mut flights = Flights::new();
        let bulk = flights.join(row(&[1]), Lane::Bulk, "bulk").expect("nobody waits yet");
        assert!(flights.has(&row(&[1]), Lane::Bulk) && !flights.has(&row(&[1]), Lane::Interactive));
        let first =
            flights.join(row(&[1]), Lane::Interactive, "interactive").expect("it must be run earlier");
        assert_eq!(flights.join(row(&[1]), Lane::Bulk, "bulk, and later"), None);
        assert_eq!(flights.land(&first, Lane::Interactive), ["interactive", "bulk, and later"]);
        assert_eq!(flights.land(&bulk, Lane::Bulk), ["bulk"]);
    }

    #[test]
    fn an_input_is_wanted_while_one_wants_it() {
        let mut flights = Flights::new();
        for gone in [true, false] {
            flights.join(row(&[1]), LANE, gone);
        }
        assert!(!flights.all(&row(&[1]), LANE, |gone| *gone));
        assert!(flights.all(&row(&[1]), LANE, |_| true));
        assert!(flights.all(&row(&[2]), LANE, |_| false), "nobody wants it");
    }
}
