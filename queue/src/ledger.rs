//! What each pod of a service has in hand, and who gets the next request.

use std::collections::{BTreeMap, btree_map::Entry};
use std::time::{Duration, Instant};

use crate::credit::PodLoad;
use crate::ejection::{Fault, Health};
use crate::wire::Lane;

/// A pod that says it has no credit, though by this ledger it has, works for another gateway too: it is asked again when
/// it has answered something, or after so long.
pub const FULL_PAUSE: Duration = Duration::from_millis(20);

/// The most sessions that are believed; they are counted one by one.
const MOST_SESSIONS: u64 = 64;

/// The most credit that is believed, in tokens: some seconds of a fast accelerator.
const MOST_CREDIT: u64 = 1 << 22;

/// One life of a pod, by a number of the caller's that it gives to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId(pub u64);

/// What is known of each pod.
///
/// A pod may have another request of a lane while it has less of that lane in hand than its credit: so never more than
/// the credit and one request, however large, of each lane. What it tells corrects what is assumed: as much credit and
/// speed as the others have, or one request at a time where nobody has told any.
#[derive(Debug, Default)]
pub struct Ledger {
    pods: BTreeMap<PodId, Pod>,
    /// Who was chosen last: of equals the next in turn is.
    last: Option<PodId>,
}

/// What is known of one pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Whether it may get requests. One that left stays in the ledger until nothing of it is in hand.
    pub is_joined: bool,
    /// What it told last.
    pub told: Option<PodLoad>,
    /// How it did.
    pub health: Health,
    interactive: Account,
    bulk: Account,
    alone: Alone,
}

/// What a pod has in hand of one lane.
#[derive(Clone, Debug, Default)]
struct Account {
    requests: usize,
    work: u64,
    /// How many requests of so much work.
    works: BTreeMap<u64, usize>,
    /// Until when it is not asked again, after it said that it has no credit.
    full_until: Option<Instant>,
}

/// Whether a pod works for one suspect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Alone {
    #[default]
    No,
    /// It gets nothing more, so that a suspect finds it empty.
    Reserved,
    /// It has a suspect in hand, and nothing else.
    Runs,
}

/// How a request ended at its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It was refused untouched, for lack of credit.
    NoCredit,
    /// It failed.
    Failed(Fault),
    /// Nobody waits for it any more.
    Left,
}

impl Ledger {
    /// These pods may get requests, and no others.
    pub fn set_pods(&mut self, pods: impl IntoIterator<Item = PodId>) {
        self.pods.values_mut().for_each(|pod| pod.is_joined = false);
        for id in pods {
            self.pods.entry(id).or_default().is_joined = true;
        }
        self.pods.retain(|_, pod| pod.is_joined || !pod.is_empty());
    }

    /// The pod that is expected to be done first with a request of so much work, of those that may have it; `avoid` only if
    /// there is no other.
    pub fn choose(&self, lane: Lane, work: u64, avoid: Option<PodId>, now: Instant) -> Option<PodId> {
        let assumed = self.assumed();
        let no_other = self.nobody_is_well();
        let may = |pod: &Pod| {
            pod.alone == Alone::No
                && pod.is_open(no_other, now)
                && pod.account(lane).has_credit(pod.told.unwrap_or(assumed).credit, now)
        };
        let done = |pod: &Pod| pod.done_in(lane, work, assumed);
        let rotated = self.in_turn().filter(|(_, pod)| may(pod));
        let best = rotated
            .map(|(id, pod)| ((Some(id) == avoid, done(pod)), id))
            .min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        best.map(|(_, id)| id)
    }

    /// An empty pod for the first of so many suspects. Where there is none, pods are reserved and become empty; at most half
    /// of them, or the only one, so that the others go on with everything else. With no suspects, none is reserved.
    pub fn choose_alone(&mut self, suspects: usize, now: Instant) -> Option<PodId> {
        let no_other = self.nobody_is_well();
        for pod in self.pods.values_mut() {
            let keeps = suspects > 0 && pod.is_open(no_other, now);
            if pod.alone == Alone::Reserved && !keeps {
                pod.alone = Alone::No;
            }
        }
        if suspects == 0 {
            return None;
        }
        let open = |pod: &Pod| {
            pod.alone != Alone::Runs
                && pod.is_open(no_other, now)
                && !pod.interactive.is_full(now)
                && !pod.bulk.is_full(now)
        };
        let usable = self.pods.values().filter(|pod| pod.alone == Alone::Runs || open(pod)).count();
        let most = (usable / 2).max(1);
        loop {
            let engaged = self.pods.values().filter(|pod| pod.alone != Alone::No).count();
            let reserved = self.pods.values().filter(|pod| pod.alone == Alone::Reserved).count();
            let may_engage = engaged < most && reserved < suspects;
            let ready = self
                .pods
                .iter()
                .find(|(_, pod)| open(pod) && pod.is_empty() && (pod.alone == Alone::Reserved || may_engage));
            if let Some((id, _)) = ready {
                return Some(*id);
            }
            if !may_engage {
                return None;
            }
            let free = self.pods.values_mut().filter(|pod| open(pod) && pod.alone == Alone::No);
            free.min_by_key(|pod| pod.interactive.work + pod.bulk.work)?.alone = Alone::Reserved;
        }
    }

    /// A pod gets a request; `alone` if it is a suspect.
    pub fn take(&mut self, id: PodId, lane: Lane, work: u64, alone: bool) {
        let pod = self.pods.entry(id).or_default();
        pod.account_mut(lane).add(work);
        pod.health.given();
        if alone {
            pod.alone = Alone::Runs;
        }
        self.last = Some(id);
    }

    /// A pod is done with a request that it got, in one way or another.
    pub fn give(&mut self, id: PodId, lane: Lane, work: u64, outcome: Outcome, now: Instant) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        pod.account_mut(lane).sub(work);
        if pod.alone == Alone::Runs {
            pod.alone = Alone::No;
        }
        match outcome {
            Outcome::Answered => {
                pod.health.answered();
                pod.interactive.full_until = None;
                pod.bulk.full_until = None;
            }
            Outcome::NoCredit => {
                // It speaks, and so is well.
                pod.health.answered();
                pod.account_mut(lane).full_until = Some(now + FULL_PAUSE);
            }
            Outcome::Failed(fault) => pod.health.failed(fault, now),
            Outcome::Left => pod.health.undecided(now),
        }
        if !pod.is_joined && pod.is_empty() {
            self.pods.remove(&id);
        }
    }

    /// A pod told its load.
    pub fn tell(&mut self, id: PodId, load: PodLoad) {
        if let Some(pod) = self.pods.get_mut(&id) {
            let (credit, sessions) =
                (load.credit.clamp(1, MOST_CREDIT), load.sessions.clamp(1, MOST_SESSIONS));
            pod.told = Some(PodLoad { credit, sessions, ..load });
        }
    }

    /// Tokens a second of all pods that get requests; `None` before any told its own.
    pub fn rate(&self) -> Option<f64> {
        let mean = self.assumed().rate;
        let getting = self.joined().filter(|pod| pod.health.is_well());
        (mean > 0).then(|| getting.map(|pod| pod.rate().unwrap_or(mean) as f64).sum())
    }

    /// When a pod that gets nothing now may get something, with nothing else happening.
    pub fn next_opening(&self, now: Instant) -> Option<Instant> {
        let no_other = self.nobody_is_well();
        let times = self
            .joined()
            .flat_map(|pod| [pod.health.probe_at(no_other), pod.interactive.full_until, pod.bulk.full_until]);
        times.flatten().filter(|at| *at > now).min()
    }

    /// What is known of each pod.
    pub fn pods(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        self.pods.iter().map(|(id, pod)| (*id, pod))
    }

    /// What is taken for told where nothing was: the mean of the others, or a credit that lets in one request at a time.
    pub fn assumed(&self) -> PodLoad {
        let told = || self.joined().filter_map(|pod| pod.told);
        PodLoad {
            credit: mean(told().map(|told| told.credit)).unwrap_or(1),
            work: 0,
            rate: mean(self.joined().filter_map(Pod::rate)).unwrap_or(0),
            sessions: mean(told().map(|told| told.sessions)).unwrap_or(1),
        }
    }

    fn nobody_is_well(&self) -> bool {
        !self.joined().any(|pod| pod.health.is_well())
    }

    fn joined(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(|pod| pod.is_joined)
    }

    /// All pods, the one after the last chosen first.
    fn in_turn(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        let last = self.last.unwrap_or(PodId(u64::MAX));
        let (before, after) =
            (self.pods.range(..=last), self.pods.range(last..).skip_while(move |(id, _)| **id == last));
        after.chain(before).map(|(id, pod)| (*id, pod))
    }
}

impl Pod {
    /// Tokens in hand of a lane, as estimated.
    pub fn in_hand(&self, lane: Lane) -> u64 {
        self.account(lane).work
    }

    /// Requests in hand, of both lanes.
    pub fn requests(&self) -> usize {
        self.interactive.requests + self.bulk.requests
    }

    fn is_empty(&self) -> bool {
        self.requests() == 0
    }

    /// Whether it gets requests: it is well, or ejected for long enough to be probed.
    fn is_open(&self, no_other: bool, now: Instant) -> bool {
        self.is_joined
            && (self.health.is_well() || self.health.probe_at(no_other).is_some_and(|at| at <= now))
    }

    /// Seconds until it is expected to be done with a request that it gets now.
    fn done_in(&self, lane: Lane, work: u64, assumed: PodLoad) -> f64 {
        let sessions = self.told.unwrap_or(assumed).sessions;
        let (interactive, bulk) = (self.interactive.work as f64, self.bulk.work as f64);
        let before = match lane {
            // Bulk that was begun is in the way, and what was not goes after.
            Lane::Interactive => self.interactive.free_after(sessions) + bulk / (4. * sessions as f64),
            Lane::Bulk => (interactive + bulk) / sessions as f64,
        };
        let rate = self.rate().unwrap_or(assumed.rate).max(1);
        (before + work as f64) * sessions as f64 / rate as f64
    }

    fn rate(&self) -> Option<u64> {
        self.told.map(|told| told.rate).filter(|rate| *rate > 0)
    }

    fn account(&self, lane: Lane) -> &Account {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        }
    }

    fn account_mut(&mut self, lane: Lane) -> &mut Account {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

impl Account {
    fn add(&mut self, work: u64) {
        self.requests += 1;
        self.work += work;
        *self.works.entry(work).or_default() += 1;
    }

    fn sub(&mut self, work: u64) {
        self.requests -= 1;
        self.work -= work;
        if let Entry::Occupied(mut count) = self.works.entry(work) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn has_credit(&self, credit: u64, now: Instant) -> bool {
        self.work < credit && !self.is_full(now)
    }

    /// Tokens that a session has to do until it is the first to be free.
    ///
    /// The largest requests may each keep one session busy to the end, and the others share the rest: of all such ways the
    /// one that frees a session first.
    fn free_after(&self, sessions: u64) -> f64 {
        let (mut left, mut sharing) = (self.work as f64, sessions as f64);
        let mut first = left / sharing;
        let each = self.works.iter().rev().flat_map(|(work, count)| std::iter::repeat_n(*work, *count));
        for largest in each.take(sessions as usize - 1) {
            left -= largest as f64;
            sharing -= 1.;
            first = first.min(left / sharing);
        }
        first
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_until.is_some_and(|until| until > now)
    }
}

fn mean(values: impl Iterator<Item = u64>) -> Option<u64> {
    let (sum, count) = values.fold((0u64, 0), |(sum, count), value| (sum.saturating_add(value), count + 1));
    sum.checked_div(count)
}
