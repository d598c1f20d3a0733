//! What comes out of a queue, and when.

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
        let cancelled = |entry: &Entry<&str>| entry.item == "leaves" && looks.replace(looks.get() + 1) > 0;
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
