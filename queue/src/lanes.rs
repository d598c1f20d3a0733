//! A bounded queue of two lanes that counts work and gives it out in batches.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Instant,
};

use crate::wire::Lane;

/// Full batches' worth of interactive tokens that may go ahead while bulk items wait, before a batch of bulk does.
///
/// So bulk has about a ninth of the work, 11 %, while both lanes are full: it moves on, and interactive hardly feels it.
/// Tokens are counted and not batches, for interactive batches are often small, and one bulk batch of nine is then a third
/// of the time.
pub const PATIENCE: u32 = 8;

/// Items that wait. The caller brings the time: nothing here reads a clock.
///
/// A batch is led by the oldest item of the lane whose turn it is, and filled with the oldest others that fit: of the same
/// length or of any, as whoever runs it wants. What has `n` items before it in its lane leads one of the next `n + 1`
/// batches of that lane or ran earlier, whatever comes after it.
#[derive(Debug)]
pub struct Queue<T> {
    bounds: Bounds,
    /// By lane and tokens, oldest first. None is empty.
    shelves: BTreeMap<(Lane, u32), VecDeque<Numbered<T>>>,
    /// What lies on them, by lane.
    loads: [Load; 2],
    /// The number of the next item: smaller is older.
    next: u64,
    /// Tokens of batches that were led by the interactive lane while bulk waited.
    passed_over: u64,
}

#[derive(Debug)]
struct Numbered<T> {
    number: u64,
    entry: Entry<T>,
}

/// What a queue holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sum of the tokens of all that wait.
    pub tokens: u64,
    /// Number of items that wait.
    pub items: usize,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Number of items.
    pub items: usize,
    /// Sum of their tokens.
    pub tokens: u64,
}

/// What one batch holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens.
    pub tokens: u64,
    /// Items.
    pub rows: usize,
}

/// What lengths the items of one batch may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// All that of the first: for a network that pads rows to the longest, so that none needs it.
    Equal,
    /// Any: for a network that takes rows one after the other.
    Any,
}

/// One item and what the queue knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// What waits.
    pub item: T,
    /// Its work.
    pub tokens: u32,
    /// Where it waits.
    pub lane: Lane,
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

/// What [`Queue::take`] took out.
#[derive(Debug)]
pub struct Taken<T> {
    /// The batch, the oldest of its lane first. Empty only if the queue was empty of living items.
    pub batch: Vec<Entry<T>>,
    /// What was found cancelled or past its deadline on the way.
    pub dropped: Vec<Entry<T>>,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, shelves: BTreeMap::new(), loads: [Load::default(); 2], next: 0, passed_over: 0 }
    }

    /// Whether so many items with so many tokens together may be pushed now: all of them or none.
    ///
    /// # Errors
    /// Says whether it is worth asking again later.
    pub fn room_for(&self, items: usize, tokens: u64) -> Result<(), Refusal> {
        if items > self.bounds.items || tokens > self.bounds.tokens {
            return Err(Refusal::TooLarge { tokens, items, bounds: self.bounds });
        }
        let waiting = Load { items: self.len(), tokens: self.tokens() };
        if waiting.items + items > self.bounds.items || waiting.tokens + tokens > self.bounds.tokens {
            return Err(Refusal::Full { tokens: waiting.tokens, items: waiting.items });
        }
        Ok(())
    }

    /// Appends one item to a lane.
    ///
    /// # Errors
    /// As [`Queue::room_for`]; the item is dropped.
    pub fn push(
        &mut self,
        item: T,
        tokens: u32,
        lane: Lane,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.room_for(1, tokens.into())?;
        let entry = Entry { item, tokens, lane, since: now, deadline };
        self.shelves.entry((lane, tokens)).or_default().push_back(Numbered { number: self.next, entry });
        self.next += 1;
        self.loads[lane as usize].add(tokens);
        Ok(())
    }

    /// Takes a batch that fits the budget. An item that exceeds it alone runs alone, for it would wait for ever
    /// otherwise.
    pub fn take(
        &mut self,
        budget: Budget,
        lengths: Lengths,
        now: Instant,
        cancelled: impl Fn(&Entry<T>) -> bool,
    ) -> Taken<T> {
        let mut taken = Taken { batch: Vec::new(), dropped: Vec::new() };
        let is_over = |entry: &Entry<T>| entry.is_over(now, &cancelled);
        let [interactive, bulk] =
            [Lane::Interactive, Lane::Bulk].map(|lane| self.oldest(lane, is_over, &mut taken.dropped));
        let bulk_waits = bulk.is_some();
        let Some(first) = self.turn(interactive, bulk, budget) else { return taken };
        let (lane, length) = first;
        let among = match lengths {
            Lengths::Equal => (length, length),
            Lengths::Any => (0, u32::MAX),
        };
        // Not looked at again: it may be cancelled meanwhile, and with it gone the others would not be found.
        taken.batch.extend(self.pop(first));
        let mut load = Load::default().with(length);
        // Two of the other lane are better in this batch than nobody.
        for lane in [lane, lane.other()] {
            let mut fronts = self.fronts(lane, among);
            while let Some(Reverse((_, tokens))) = fronts.pop() {
                // Nothing more of this length fits, and something shorter may.
                if !budget.has_room(load.with(tokens)) {
                    continue;
                }
                let Some(entry) = self.pop((lane, tokens)) else { continue };
                fronts.extend(self.front((lane, tokens)));
                if is_over(&entry) {
                    taken.dropped.push(entry);
                } else {
                    load = load.with(tokens);
                    taken.batch.push(entry);
                }
            }
        }
        if bulk_waits && lane == Lane::Interactive {
            self.passed_over += load.tokens;
        }
        taken
    }

    /// Takes out everything that is cancelled or past its deadline, to make room.
    pub fn purge(&mut self, now: Instant, cancelled: impl Fn(&Entry<T>) -> bool) -> Vec<Entry<T>> {
        let mut over = Vec::new();
        for shelf in self.shelves.values_mut() {
            let (dead, living): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(shelf).into_iter().partition(|n| n.entry.is_over(now, &cancelled));
            *shelf = living;
            over.extend(dead.into_iter().map(|n| n.entry));
        }
        self.shelves.retain(|_, shelf| !shelf.is_empty());
        over.iter().for_each(|entry| self.loads[entry.lane as usize].subtract(entry.tokens));
        over
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.loads.iter().map(|load| load.items).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that wait.
    pub fn tokens(&self) -> u64 {
        self.loads.iter().map(|load| load.tokens).sum()
    }

    /// What waits in a lane.
    pub fn load(&self, lane: Lane) -> Load {
        self.loads[lane as usize]
    }

    /// Tokens that run before what comes to a lane now, if nothing else comes. Bulk has a turn after each
    /// [`PATIENCE`] of the interactive lane's, and is behind all of them else.
    pub fn ahead_of(&self, lane: Lane) -> u64 {
        let [interactive, bulk] = self.loads.map(|load| load.tokens);
        match lane {
            Lane::Interactive => interactive + bulk.min(interactive / u64::from(PATIENCE)),
            Lane::Bulk => interactive + bulk,
        }
    }

    /// The shelf that the oldest living item of a lane lies on; the dead before it are taken out.
    fn oldest(
        &mut self,
        lane: Lane,
        is_over: impl Fn(&Entry<T>) -> bool,
        dropped: &mut Vec<Entry<T>>,
    ) -> Option<(Lane, u32)> {
        loop {
            let fronts = self.shelves.range((lane, 0)..=(lane, u32::MAX));
            let (&key, shelf) = fronts.min_by_key(|(_, shelf)| shelf.front().map(|n| n.number))?;
            if shelf.front().is_some_and(|n| !is_over(&n.entry)) {
                return Some(key);
            }
            dropped.extend(self.pop(key));
        }
    }

    /// Which of the lanes' oldest items leads the next batch.
    fn turn<K>(&mut self, interactive: Option<K>, bulk: Option<K>, budget: Budget) -> Option<K> {
        match (interactive, bulk) {
            (Some(key), Some(_)) if self.passed_over < u64::from(PATIENCE) * budget.tokens => Some(key),
            (interactive, bulk) => {
                self.passed_over = 0;
                bulk.or(interactive)
            }
        }
    }

    /// The oldest item of each length among these, the oldest of all on top: its number and its tokens.
    fn fronts(&self, lane: Lane, (least, most): (u32, u32)) -> BinaryHeap<Reverse<(u64, u32)>> {
        let shelves = self.shelves.range((lane, least)..=(lane, most));
        shelves.filter_map(|(&key, _)| self.front(key)).collect()
    }

    fn front(&self, key: (Lane, u32)) -> Option<Reverse<(u64, u32)>> {
        Some(Reverse((self.shelves.get(&key)?.front()?.number, key.1)))
    }

    fn pop(&mut self, key: (Lane, u32)) -> Option<Entry<T>> {
        let shelf = self.shelves.get_mut(&key)?;
        let entry = shelf.pop_front()?.entry;
        if shelf.is_empty() {
            self.shelves.remove(&key);
        }
        self.loads[entry.lane as usize].subtract(entry.tokens);
        Some(entry)
    }
}

impl Load {
    fn add(&mut self, tokens: u32) {
        *self = self.with(tokens);
    }

    /// One more of so many tokens.
    fn with(self, tokens: u32) -> Self {
        Self { items: self.items + 1, tokens: self.tokens + u64::from(tokens) }
    }

    fn subtract(&mut self, tokens: u32) {
        self.items -= 1;
        self.tokens -= u64::from(tokens);
    }
}

impl Budget {
    /// How full a batch is: the share of its rows or of its tokens, whichever is larger. One alone can have more tokens
    /// than the budget, and fills it.
    pub fn fill(&self, rows: usize, tokens: u64) -> f64 {
        let share = |part: f64, whole: f64| if whole > 0. { part / whole } else { 1. };
        share(rows as f64, self.rows as f64).max(share(tokens as f64, self.tokens as f64)).min(1.)
    }

    fn has_room(self, load: Load) -> bool {
        load.items <= self.rows && load.tokens <= self.tokens
    }
}

impl<T> Entry<T> {
    fn is_over(&self, now: Instant, cancelled: impl Fn(&Self) -> bool) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now) || cancelled(self)
    }
}

#[cfg(test)]
mod tests;
