//! A bounded queue, first in first out, that counts work.

use std::collections::VecDeque;
use std::time::Instant;

/// Items that wait, in the order in which they came. The caller brings the time: nothing here reads a clock.
#[derive(Debug)]
pub struct Fifo<T> {
    bounds: Bounds,
    waiting: VecDeque<Entry<T>>,
    tokens: u64,
}

/// What a queue holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sum of the tokens of all that wait.
    pub tokens: u64,
    /// Number of items that wait.
    pub items: usize,
}

/// What one batch holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens once every row is padded to the longest: rows times the tokens of the longest.
    pub tokens: u64,
    /// Items.
    pub rows: usize,
}

/// One item and what the queue knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// What waits.
    pub item: T,
    /// Its work.
    pub tokens: u32,
    /// When it came.
    pub since: Instant,
    /// From when on nobody wants the result.
    pub deadline: Option<Instant>,
}

/// Why an item was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no room now; there will be later.
    #[error("the queue is full: {items} inputs of {tokens} tokens wait already")]
    Full {
        /// Tokens that wait.
        tokens: u64,
        /// Items that wait.
        items: usize,
    },
    /// There is never room, not even in an empty queue.
    #[error("{items} inputs of {tokens} tokens are more than the whole queue holds: {} inputs, {} tokens", .bounds.items, .bounds.tokens)]
    TooLarge {
        /// Tokens that were offered.
        tokens: u64,
        /// Items that were offered.
        items: usize,
        /// What the queue holds.
        bounds: Bounds,
    },
}

/// What [`Fifo::take`] took out.
#[derive(Debug)]
pub struct Taken<T> {
    /// The batch, oldest first. Empty only if the queue was empty of living items.
    pub batch: Vec<Entry<T>>,
    /// What was found cancelled or past its deadline on the way.
    pub dropped: Vec<Entry<T>>,
}

impl<T> Fifo<T> {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: VecDeque::new(), tokens: 0 }
    }

    /// Whether so many items with so many tokens together may be pushed now: all of them or none.
    ///
    /// # Errors
    /// Says whether it is worth asking again later.
    pub fn room_for(&self, items: usize, tokens: u64) -> Result<(), Refusal> {
        if items > self.bounds.items || tokens > self.bounds.tokens {
            return Err(Refusal::TooLarge { tokens, items, bounds: self.bounds });
        }
        if self.waiting.len() + items > self.bounds.items || self.tokens + tokens > self.bounds.tokens {
            return Err(Refusal::Full { tokens: self.tokens, items: self.waiting.len() });
        }
        Ok(())
    }

    /// Appends one item.
    ///
    /// # Errors
    /// As [`Fifo::room_for`]; the item is dropped.
    pub fn push(
        &mut self,
        item: T,
        tokens: u32,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.room_for(1, tokens.into())?;
        self.tokens += u64::from(tokens);
        self.waiting.push_back(Entry { item, tokens, since: now, deadline });
        Ok(())
    }

    /// Takes the oldest items that fit the budget. An item that exceeds it alone runs alone, for it would wait
    /// for ever otherwise. Order is kept: nothing that came later overtakes what did not fit.
    pub fn take(&mut self, budget: Budget, now: Instant, cancelled: impl Fn(&T) -> bool) -> Taken<T> {
        let mut taken = Taken { batch: Vec::new(), dropped: Vec::new() };
        let mut longest = 0;
        while let Some(front) = self.waiting.front() {
            if front.is_over(now, &cancelled) {
                taken.dropped.extend(self.pop());
                continue;
            }
            let rows = taken.batch.len() + 1;
            let padded = rows as u64 * u64::from(front.tokens.max(longest));
            if rows > 1 && (rows > budget.rows || padded > budget.tokens) {
                break;
            }
            longest = longest.max(front.tokens);
            taken.batch.extend(self.pop());
        }
        taken
    }

    /// Takes out everything that is cancelled or past its deadline, to make room.
    pub fn purge(&mut self, now: Instant, cancelled: impl Fn(&T) -> bool) -> Vec<Entry<T>> {
        let (over, living): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|entry| entry.is_over(now, &cancelled));
        self.waiting = living;
        self.tokens = self.waiting.iter().map(|entry| u64::from(entry.tokens)).sum();
        over.into()
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.waiting.pop_front()?;
        self.tokens -= u64::from(entry.tokens);
        Some(entry)
    }
}

impl<T> Entry<T> {
    fn is_over(&self, now: Instant, cancelled: impl Fn(&T) -> bool) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now) || cancelled(&self.item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { tokens: 1000, items: 20 };

    /// What may happen to a queue, with a second between two steps.
    #[derive(Clone, Debug)]
    enum Step {
        Push { tokens: u32, patience: Option<u64>, cancelled: bool },
        Take { budget: Budget },
        Purge,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Item {
        number: usize,
        cancelled: bool,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = (0u32..1200, proptest::option::of(0u64..20), proptest::bool::weighted(0.2))
            .prop_map(|(tokens, patience, cancelled)| Step::Push { tokens, patience, cancelled });
        let take =
            (0u64..600, 0usize..6).prop_map(|(tokens, rows)| Step::Take { budget: Budget { tokens, rows } });
        proptest::collection::vec(prop_oneof![4 => push, 2 => take, 1 => Just(Step::Purge)], 0..200)
    }

    fn cancelled(item: &Item) -> bool {
        item.cancelled
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nothing_comes_twice_and_order_holds(steps in steps()) {
            let mut queue = Fifo::new(BOUNDS);
            let mut now = Instant::now();
            let (mut let_in, mut out, mut ran) = (Vec::new(), Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                now += Duration::from_secs(1);
                match step {
                    Step::Push { tokens, patience, cancelled } => {
                        let item = Item { number, cancelled };
                        let deadline = patience.map(|s| now + Duration::from_secs(s));
                        if queue.push(item, tokens, deadline, now).is_ok() {
                            let_in.push(item);
                        }
                    }
                    Step::Take { budget } => {
                        let taken = queue.take(budget, now, cancelled);
                        let longest = taken.batch.iter().map(|e| u64::from(e.tokens)).max().unwrap_or(0);
                        let rows = taken.batch.len();
                        prop_assert!(rows <= 1 || rows <= budget.rows && rows as u64 * longest <= budget.tokens);
                        prop_assert!(rows > 0 || queue.is_empty());
                        prop_assert!(taken.batch.iter().all(|e| !e.is_over(now, cancelled)));
                        prop_assert!(taken.dropped.iter().all(|e| e.is_over(now, cancelled)));
                        ran.extend(taken.batch.iter().map(|e| e.item));
                        out.extend(taken.batch.into_iter().chain(taken.dropped).map(|e| e.item));
                    }
                    Step::Purge => out.extend(queue.purge(now, cancelled).into_iter().map(|e| e.item)),
                }
                prop_assert!(queue.len() <= BOUNDS.items && queue.tokens() <= BOUNDS.tokens);
            }
            prop_assert!(ran.is_sorted());
            let rest = queue.purge(now, |_| true);
            prop_assert!(rest.iter().map(|e| e.item).is_sorted());
            prop_assert_eq!(queue.tokens(), 0);
            out.extend(rest.into_iter().map(|e| e.item));
            out.sort();
            prop_assert_eq!(out, let_in);
        }
    }

    #[test]
    fn an_item_over_the_budget_runs_alone() {
        let (mut queue, now) = (Fifo::new(BOUNDS), Instant::now());
        for (item, tokens) in [("long", 900), ("short", 10)] {
            queue.push(item, tokens, None, now).expect("there is room");
        }
        let taken = queue.take(Budget { tokens: 100, rows: 8 }, now, |_| false);
        assert_eq!(taken.batch.iter().map(|e| e.item).collect::<Vec<_>>(), ["long"]);
    }

    #[test]
    fn a_refusal_says_whether_to_come_again() {
        let (mut queue, now) = (Fifo::new(BOUNDS), Instant::now());
        assert!(matches!(queue.push((), 1001, None, now), Err(Refusal::TooLarge { tokens: 1001, .. })));
        assert!(matches!(queue.room_for(21, 21), Err(Refusal::TooLarge { items: 21, .. })));
        queue.push((), 600, None, now).expect("there is room");
        assert_eq!(queue.push((), 401, None, now), Err(Refusal::Full { tokens: 600, items: 1 }));
        assert_eq!(queue.room_for(2, 400), Ok(()));
    }

    #[test]
    fn padding_counts() {
        let (mut queue, now) = (Fifo::new(BOUNDS), Instant::now());
        for tokens in [10, 10, 50] {
            queue.push(tokens, tokens, None, now).expect("there is room");
        }
        // Three rows of 50 would be 150 tokens, though only 70 are asked for.
        let taken = queue.take(Budget { tokens: 100, rows: 8 }, now, |_| false);
        assert_eq!(taken.batch.iter().map(|e| e.item).collect::<Vec<_>>(), [10, 10]);
    }
}
