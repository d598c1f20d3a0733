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
mod tests {
    use std::{cell::Cell, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { tokens: 1000, items: 20 };

    /// What may happen to a queue, with a second between two steps.
    #[derive(Clone, Debug)]
    enum Step {
        Push { tokens: u32, lane: Lane, patience: Option<u64>, cancelled: bool },
        Take { budget: Budget },
        Purge,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Item {
        number: usize,
        cancelled: bool,
    }

    fn lane() -> impl Strategy<Value = Lane> {
        prop_oneof![Just(Lane::Interactive), Just(Lane::Bulk)]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Few lengths, so that many are equal, and one that is more than the queue holds.
        let tokens = prop_oneof![1u32..5, 50u32..55, Just(1200)];
        let push = (tokens, lane(), proptest::option::of(0u64..20), proptest::bool::weighted(0.2))
            .prop_map(|(tokens, lane, patience, cancelled)| Step::Push { tokens, lane, patience, cancelled });
        let take =
            (0u64..200, 0usize..6).prop_map(|(tokens, rows)| Step::Take { budget: Budget { tokens, rows } });
        proptest::collection::vec(prop_oneof![4 => push, 2 => take, 1 => Just(Step::Purge)], 0..200)
    }

    fn lengths() -> impl Strategy<Value = Lengths> {
        prop_oneof![Just(Lengths::Equal), Just(Lengths::Any)]
    }

    fn load<T>(batch: &[Entry<T>]) -> Load {
        batch.iter().fold(Load::default(), |load, entry| load.with(entry.tokens))
    }

    fn cancelled(entry: &Entry<Item>) -> bool {
        entry.item.cancelled
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nothing_comes_twice_and_no_batch_is_too_large(steps in steps(), lengths in lengths()) {
            let mut queue = Queue::new(BOUNDS);
            let mut now = Instant::now();
            let (mut let_in, mut out) = (Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                now += Duration::from_secs(1);
                match step {
                    Step::Push { tokens, lane, patience, cancelled } => {
                        let item = Item { number, cancelled };
                        let deadline = patience.map(|s| now + Duration::from_secs(s));
                        if queue.push(item, tokens, lane, deadline, now).is_ok() {
                            let_in.push(item);
                        }
                    }
                    Step::Take { budget } => {
                        let taken = queue.take(budget, lengths, now, cancelled);
                        let length = taken.batch.first().map_or(0, |e| e.tokens);
                        let rows = taken.batch.len();
                        prop_assert!(rows <= 1 || budget.has_room(load(&taken.batch)));
                        prop_assert!(lengths == Lengths::Any || taken.batch.iter().all(|e| e.tokens == length));
                        prop_assert!(rows > 0 || queue.is_empty());
                        prop_assert!(taken.batch.iter().all(|e| !e.is_over(now, cancelled)));
                        prop_assert!(taken.dropped.iter().all(|e| e.is_over(now, cancelled)));
                        out.extend(taken.batch.into_iter().chain(taken.dropped).map(|e| e.item));
                    }
                    Step::Purge => out.extend(queue.purge(now, cancelled).into_iter().map(|e| e.item)),
                }
                prop_assert!(queue.len() <= BOUNDS.items && queue.tokens() <= BOUNDS.tokens);
                prop_assert_eq!(queue.len(), let_in.len() - out.len());
            }
            out.extend(queue.purge(now, |_| true).into_iter().map(|e| e.item));
            prop_assert_eq!((queue.len(), queue.tokens()), (0, 0));
            out.sort();
            prop_assert_eq!(out, let_in);
        }

        /// Whatever comes after it, an item is overtaken only so often.
        #[test]
        fn nobody_starves(
            arrivals in proptest::collection::vec(proptest::collection::vec((lane(), 1u32..6), 0..4), 1..100),
            rows in 1usize..4,
            lengths in lengths(),
        ) {
            let mut queue = Queue::new(Bounds { tokens: u64::MAX, items: usize::MAX });
            let (now, budget) = (Instant::now(), Budget { tokens: 8, rows });
            let (mut waiting, mut arrivals) = (Vec::<(Lane, usize, usize)>::new(), arrivals.into_iter());
            // Before each turn: tokens that went in batches led by interactive items.
            let mut led = vec![0];
            for turn in 0.. {
                let came = arrivals.next();
                let over = came.is_none();
                for (lane, tokens) in came.into_iter().flatten() {
                    let before = waiting.iter().filter(|&&(l, ..)| l == lane).count();
                    waiting.push((lane, turn, before));
                    queue.push((lane, turn, before), tokens, lane, None, now).expect("there is room");
                }
                let batch = queue.take(budget, lengths, now, |_| false).batch;
                if let Some(first) = batch.first() {
                    let oldest = waiting.iter().find(|item| item.0 == first.lane).expect("it waits");
                    prop_assert_eq!(oldest, &first.item, "the oldest of its lane leads");
                }
                let is_interactive = batch.first().is_some_and(|first| first.lane == Lane::Interactive);
                let tokens: u64 = batch.iter().filter(|_| is_interactive).map(|e| u64::from(e.tokens)).sum();
                led.push(led[turn] + tokens);
                for Entry { item: (lane, came, before), .. } in batch {
                    // While both lanes are full, bulk leads once after eight full batches' worth of interactive tokens.
                    let leads = before + 1;
                    let (waited, bound) = match lane {
                        Lane::Interactive => (turn - came, leads + leads.div_ceil(PATIENCE as usize)),
                        Lane::Bulk => {
                            ((led[turn] - led[came]) as usize, leads * (PATIENCE as usize + 1) * budget.tokens as usize)
                        }
                    };
                    prop_assert!(waited < bound, "{lane:?} waited {waited} behind {before}");
                    let place = waiting.iter().position(|&item| item == (lane, came, before));
                    waiting.remove(place.expect("it waits"));
                }
                if over && queue.is_empty() {
                    break;
                }
            }
            prop_assert!(waiting.is_empty());
        }
    }

    proptest! {
        /// What stays behind is younger, or would not have fitted when its turn came: of each lane the oldest that fit are taken,
        /// in their order.
        #[test]
        fn a_batch_of_any_lengths_has_the_oldest_that_fit(
            items in proptest::collection::vec((lane(), 1u32..30), 1..40),
            (tokens, rows) in (1u64..100, 1usize..12),
        ) {
            let mut queue = Queue::new(Bounds { tokens: u64::MAX, items: usize::MAX });
            let (now, budget) = (Instant::now(), Budget { tokens, rows });
            for (number, &(lane, tokens)) in items.iter().enumerate() {
                queue.push(number, tokens, lane, None, now).expect("there is room");
            }
            let batch = queue.take(budget, Lengths::Any, now, |_| false).batch;
            let interactive_waits = items.iter().any(|&(lane, _)| lane == Lane::Interactive);
            let first = if interactive_waits { Lane::Interactive } else { Lane::Bulk };
            let mut expected = Vec::new();
            let mut sum = Load::default();
            for turn in [first, first.other()] {
                for (number, &(_, tokens)) in items.iter().enumerate().filter(|(_, (lane, _))| *lane == turn) {
                    if expected.is_empty() || budget.has_room(sum.with(tokens)) {
                        sum = sum.with(tokens);
                        expected.push(number);
                    }
                }
            }
            prop_assert_eq!(batch.iter().map(|entry| entry.item).collect::<Vec<_>>(), expected);
        }

        /// For a network that pads, nothing has changed with the others: a batch is what it would be without them.
        #[test]
        fn a_batch_of_equal_lengths_does_not_see_the_others(
            items in proptest::collection::vec((lane(), 1u32..5), 1..40),
            (tokens, rows) in (1u64..40, 1usize..12),
        ) {
            let now = Instant::now();
            let take = |only: Option<u32>| {
                let mut queue = Queue::new(Bounds { tokens: u64::MAX, items: usize::MAX });
                for (number, &(lane, tokens)) in items.iter().enumerate() {
                    if only.is_none_or(|only| only == tokens) {
                        queue.push(number, tokens, lane, None, now).expect("there is room");
                    }
                }
                let batch = queue.take(Budget { tokens, rows }, Lengths::Equal, now, |_| false).batch;
                (batch[0].tokens, batch.iter().map(|entry| entry.item).collect::<Vec<_>>())
            };
            let (length, batch) = take(None);
            let led_by_bulk = items[batch[0]].0 == Lane::Bulk;
            prop_assert!(!led_by_bulk || items.iter().all(|&(lane, _)| lane == Lane::Bulk));
            prop_assert_eq!(batch, take(Some(length)).1);
        }
    }

    fn push<T>(queue: &mut Queue<T>, item: T, tokens: u32, lane: Lane) {
        queue.push(item, tokens, lane, None, Instant::now()).expect("there is room");
    }

    fn take<T: Copy>(queue: &mut Queue<T>, tokens: u64, rows: usize) -> Vec<T> {
        let taken = queue.take(Budget { tokens, rows }, Lengths::Equal, Instant::now(), |_| false);
        taken.batch.iter().map(|e| e.item).collect()
    }

    #[test]
    fn an_item_over_the_budget_runs_alone() {
        let mut queue = Queue::new(BOUNDS);
        push(&mut queue, "long", 300, Lane::Interactive);
        push(&mut queue, "as long", 300, Lane::Interactive);
        assert_eq!(take(&mut queue, 100, 8), ["long"]);
    }

    #[test]
    fn a_batch_is_of_one_length_and_led_by_the_oldest() {
        let mut queue = Queue::new(BOUNDS);
        for (item, tokens) in [("a", 5), ("b", 3), ("c", 5), ("d", 3), ("e", 5)] {
            push(&mut queue, item, tokens, Lane::Interactive);
        }
        assert_eq!(take(&mut queue, 14, 8), ["a", "c"]);
        assert_eq!(take(&mut queue, 14, 8), ["b", "d"]);
        assert_eq!(take(&mut queue, 14, 8), ["e"]);
    }

    #[test]
    fn a_batch_of_any_lengths_skips_what_does_not_fit() {
        let mut queue = Queue::new(BOUNDS);
        for (item, tokens) in [("a", 5), ("long", 9), ("b", 3), ("c", 5), ("d", 1)] {
            push(&mut queue, item, tokens, Lane::Interactive);
        }
        let mut take = || {
            let taken = queue.take(Budget { tokens: 13, rows: 8 }, Lengths::Any, Instant::now(), |_| false);
            taken.batch.iter().map(|entry| entry.item).collect::<Vec<_>>()
        };
        assert_eq!([take(), take(), take()], [vec!["a", "b", "c"], vec!["long", "d"], vec![]]);
    }

    #[test]
    fn interactive_goes_first_and_bulk_has_its_turn() {
        let mut queue = Queue::new(Bounds { tokens: 1000, items: 100 });
        for i in 0..20 {
            push(&mut queue, (Lane::Bulk, i), 7, Lane::Bulk);
            push(&mut queue, (Lane::Interactive, i), 8, Lane::Interactive);
        }
        let order: Vec<_> = (0..18).flat_map(|_| take(&mut queue, 8, 1)).collect();
        let bulk: Vec<_> = order.iter().enumerate().filter(|(_, item)| item.0 == Lane::Bulk).collect();
        assert_eq!(bulk, [(8, &(Lane::Bulk, 0)), (17, &(Lane::Bulk, 1))]);
    }

    #[test]
    fn a_batch_is_as_full_as_its_fuller_side() {
        let budget = Budget { tokens: 256, rows: 64 };
        for (rows, tokens, fill) in [(16, 32, 0.25), (1, 128, 0.5), (64, 64, 1.), (1, 512, 1.)] {
            assert_eq!(budget.fill(rows, tokens), fill, "{rows} {tokens}");
        }
    }

    /// Once, a client that left just then made an empty batch, and a pod took that for an empty queue.
    #[test]
    fn who_leaves_while_a_batch_is_made_does_not_hide_the_others() {
        for lengths in [Lengths::Equal, Lengths::Any] {
            let mut queue = Queue::new(BOUNDS);
            push(&mut queue, "leaves", 5, Lane::Interactive);
            push(&mut queue, "stays", 3, Lane::Interactive);
            let looks = Cell::new(0);
            let cancelled =
                |entry: &Entry<&str>| entry.item == "leaves" && looks.replace(looks.get() + 1) > 0;
            let taken = queue.take(Budget { tokens: 5, rows: 8 }, lengths, Instant::now(), cancelled);
            assert!(!taken.batch.is_empty(), "{lengths:?}");
            assert_eq!(queue.len() + taken.batch.len() + taken.dropped.len(), 2);
        }
    }

    #[test]
    fn bulk_is_behind_what_is_interactive() {
        let mut queue = Queue::new(BOUNDS);
        push(&mut queue, (), 30, Lane::Bulk);
        assert_eq!((queue.ahead_of(Lane::Interactive), queue.ahead_of(Lane::Bulk)), (0, 30));
        push(&mut queue, (), 80, Lane::Interactive);
        assert_eq!((queue.ahead_of(Lane::Interactive), queue.ahead_of(Lane::Bulk)), (90, 110));
        assert_eq!(queue.load(Lane::Bulk), Load { items: 1, tokens: 30 });
        take(&mut queue, 1000, 8);
        assert_eq!((queue.load(Lane::Interactive), queue.ahead_of(Lane::Bulk)), (Load::default(), 30));
    }

    #[test]
    fn a_batch_with_room_takes_from_the_other_lane_too() {
        let mut queue = Queue::new(BOUNDS);
        push(&mut queue, "bulk", 7, Lane::Bulk);
        push(&mut queue, "interactive", 7, Lane::Interactive);
        assert_eq!(take(&mut queue, 14, 8), ["interactive", "bulk"]);
    }

    #[test]
    fn a_refusal_says_whether_to_come_again() {
        let (mut queue, now) = (Queue::new(BOUNDS), Instant::now());
        let lane = Lane::Interactive;
        assert!(matches!(queue.push((), 1001, lane, None, now), Err(Refusal::TooLarge { tokens: 1001, .. })));
        assert!(matches!(queue.room_for(21, 21), Err(Refusal::TooLarge { items: 21, .. })));
        push(&mut queue, (), 600, lane);
        assert_eq!(queue.push((), 401, lane, None, now), Err(Refusal::Full { tokens: 600, items: 1 }));
        assert_eq!(queue.room_for(2, 400), Ok(()));
    }
}
