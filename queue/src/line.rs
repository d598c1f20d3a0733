//! The requests of one service that wait at its gateway, in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::wire::Lane;

/// How long after a request others may still come that go before it in its lane, because they are due earlier.
///
/// So a stream of requests with short deadlines cannot hold up one that has none, and nobody starves.
pub const OVERTAKING: Duration = Duration::from_secs(10);

/// Sums of work are kept for spans of so many milliseconds in which requests are due.
const SPAN: Duration = Duration::from_millis(100);

/// The number of a request at its dispatcher: what came later has a greater one, and none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    pub(crate) const FIRST: Self = Self(0);

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a line holds at most. Bulk fills it to three quarters, so that there is always room for who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineBounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of their bodies together.
    pub bytes: usize,
}

/// The place of a request, which it keeps until it ends: one that comes back stands where it stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub ticket: Ticket,
    /// Its lane.
    pub lane: Lane,
    /// When it came.
    pub since: Instant,
    /// What is due earlier goes first in its lane, and of those what came first.
    pub due: Instant,
    /// When nobody wants it started any more.
    pub until: Instant,
    /// Its work in tokens, as estimated when it came.
    pub work: u64,
    /// Bytes of its body.
    pub bytes: usize,
}

impl Place {
    /// When a request is due that comes now and waits until then at most.
    pub fn due(until: Instant, now: Instant) -> Instant {
        until.min(now + OVERTAKING)
    }

    fn rank(&self) -> Rank {
        (self.due, self.ticket)
    }
}

type Rank = (Instant, Ticket);

/// Where a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    /// With others of its lane.
    Lane(Lane),
    /// Its pod died of it, or of another: until that is known it runs alone.
    Suspects,
}

/// Requests that wait. The caller brings the time.
///
/// Each lane is a line of its own, and neither waits for the other here: a pod gives each lane credit of its own, and its
/// queue ([`crate::lanes`]) decides between them when it makes a batch.
#[derive(Debug)]
pub struct Line<T> {
    bounds: LineBounds,
    /// From when on spans are counted.
    epoch: Instant,
    rows: BTreeMap<Row, BTreeMap<Rank, Waiting<T>>>,
    index: BTreeMap<Ticket, (Row, Rank)>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    bytes: usize,
    /// Tokens that wait, by lane and by the span in which they are due. None is zero.
    spans: BTreeMap<(Lane, u128), u64>,
    /// Tokens that wait, by lane.
    work: BTreeMap<Lane, u64>,
}

/// One request that waits, and whom to tell.
#[derive(Debug)]
pub struct Waiting<T> {
    /// Its place.
    pub place: Place,
    /// Whom to tell.
    pub waiter: T,
}

impl<T> Line<T> {
    /// An empty line.
    pub fn new(bounds: LineBounds, now: Instant) -> Self {
        Self {
            bounds,
            epoch: now,
            rows: BTreeMap::new(),
            index: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            spans: BTreeMap::new(),
            work: BTreeMap::new(),
        }
    }

    /// Changes what it holds at most. What waits stays.
    pub fn set_bounds(&mut self, bounds: LineBounds) {
        self.bounds = bounds;
    }

    /// Whether one more request of so many bytes may be put there.
    pub fn has_room(&self, lane: Lane, bytes: usize) -> bool {
        let part = |bound: usize| match lane {
            Lane::Interactive => bound,
            Lane::Bulk => bound - bound / 4,
        };
        self.index.len() < part(self.bounds.requests)
            && self.bytes.saturating_add(bytes) <= part(self.bounds.bytes)
    }

    /// Puts a request where it belongs. Bounds are not looked at, for one that comes back was let in before.
    pub fn put(&mut self, place: Place, alone: bool, waiter: T) {
        let (row, rank) = (if alone { Row::Suspects } else { Row::Lane(place.lane) }, place.rank());
        let span = self.span(rank.0);
        *self.spans.entry((place.lane, span)).or_default() += place.work;
        *self.work.entry(place.lane).or_default() += place.work;
        self.bytes += place.bytes;
        self.index.insert(place.ticket, (row, rank));
        self.deadlines.insert((place.until, place.ticket));
        self.rows.entry(row).or_default().insert(rank, Waiting { place, waiter });
    }

    /// The request of a lane that is next.
    pub fn first(&self, lane: Lane) -> Option<&Place> {
        self.front(Row::Lane(lane))
    }

    /// The suspect that is next.
    pub fn first_suspect(&self) -> Option<&Place> {
        self.front(Row::Suspects)
    }

    /// Suspects that wait.
    pub fn suspects(&self) -> usize {
        self.rows.get(&Row::Suspects).map_or(0, BTreeMap::len)
    }

    /// Takes a request out, wherever it stands.
    pub fn take(&mut self, ticket: Ticket) -> Option<Waiting<T>> {
        let (row, rank) = self.index.remove(&ticket)?;
        let waiting = self.rows.get_mut(&row)?.remove(&rank)?;
        let Place { lane, until, work, bytes, .. } = waiting.place;
        self.deadlines.remove(&(until, ticket));
        self.bytes -= bytes;
        *self.work.entry(lane).or_default() -= work;
        let span = (lane, self.span(rank.0));
        if let Some(sum) = self.spans.get_mut(&span) {
            *sum -= work;
            if *sum == 0 {
                self.spans.remove(&span);
            }
        }
        Some(waiting)
    }

    /// Takes out one request that nobody wants started any more.
    pub fn expire(&mut self, now: Instant) -> Option<Waiting<T>> {
        let ticket = self.deadlines.first().filter(|(until, _)| *until <= now)?.1;
        self.take(ticket)
    }

    /// When the next request expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Tokens of a lane that go before a request which comes now and is due then, give or take those due within 0.1 s of it.
    ///
    /// Nothing is due later than [`OVERTAKING`] from now: at most a hundred sums are looked at, however many wait.
    pub fn work_before(&self, lane: Lane, due: Instant) -> u64 {
        let span = self.span(due);
        let after: u64 = self.spans.range((lane, span + 1)..=(lane, u128::MAX)).map(|(_, work)| work).sum();
        self.work(lane) - after
    }

    /// Tokens of a lane that wait.
    pub fn work(&self, lane: Lane) -> u64 {
        self.work.get(&lane).copied().unwrap_or(0)
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of what waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The request that came first of all that wait.
    pub fn oldest(&self) -> Option<Ticket> {
        self.index.keys().next().copied()
    }

    fn front(&self, row: Row) -> Option<&Place> {
        self.rows.get(&row)?.values().next().map(|waiting| &waiting.place)
    }

    fn span(&self, due: Instant) -> u128 {
        due.saturating_duration_since(self.epoch).as_nanos() / SPAN.as_nanos()
    }
}
