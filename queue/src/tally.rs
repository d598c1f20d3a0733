//! What a gateway counts of its services' requests, to tell it in a [`Report`]. The caller brings the time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    report::{Report, ServiceReport},
    retry::Past,
    wire::Lane,
};

/// How long a service is remembered of which nothing is there and nothing comes: longer than a leader is away, so that
/// the next one still gets the last counts.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// How long somebody who was sent away from a service without a pod counts as waiting for it: clients come again.
pub const WANTED_FOR: Duration = Duration::from_secs(30);

/// Pods of one service whose rates are told.
const RATES: usize = 1024;

/// Counts the requests of one gateway, from when each comes until it is over.
#[derive(Debug)]
pub struct Tally {
    epoch: String,
    began: Instant,
    services: BTreeMap<Arc<str>, Entry>,
    /// Grows with each report; what changed after the report of that number has a higher one.
    version: u64,
}

#[derive(Debug)]
struct Entry {
    told: ServiceReport,
    /// Until when the integrals are added up.
    summed: Instant,
    /// The last time that somebody who was sent away wanted it.
    wanted: Option<Instant>,
    /// When a request last came, went on or ended.
    touched: Instant,
    version: u64,
}

/// One request, as long as it is counted as there.
#[derive(Debug)]
#[must_use = "it counts as there until it is ended"]
pub struct Passage {
    service: Arc<str>,
    lane: Lane,
    tokens: u64,
    received: Instant,
    place: Place,
}

/// Where a request is: `Waiting` -> `InHand`, and back if its pod could not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    InHand,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod answered it.
    Answered {
        /// Tokens it had, as the pod counted them; 0 if it did not tell.
        tokens: u64,
    },
    /// A pod had it and gave no answer, or its failure.
    Failed,
    /// The gateway refused it.
    Refused,
    /// Its client left.
    Cancelled,
    /// It went on to another gateway, where it counts from now on.
    Moved,
}

impl Passage {
    /// `<namespace>/<name>` of the service that it is for.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl Tally {
    /// Has counted nothing. No two lives of any gateway may have the same `epoch`.
    pub fn new(epoch: String, began: Instant) -> Self {
        Self { epoch, began, services: BTreeMap::new(), version: 1 }
    }

    /// A request of about so many tokens has come, after what it went through at other gateways, and waits: its arrival
    /// counts once among them all, and its time from when it came to the first.
    pub fn arrive(&mut self, past: Past, service: &str, lane: Lane, tokens: u64, now: Instant) -> Passage {
        let (service, entry) = self.entry(service, now);
        if past.history.is_none() {
            let counts = &mut entry.told.counts;
            counts.arrived = counts.arrived.saturating_add(1);
            counts.arrived_tokens = counts.arrived_tokens.saturating_add(tokens);
            counts.arrived_squares = counts.arrived_squares.saturating_add(tokens.saturating_mul(tokens));
        }
        let received = now.checked_sub(past.waited).unwrap_or(now);
        let passage = Passage { service, lane, tokens, received, place: Place::Waiting };
        entry.add(&passage, Place::Waiting);
        passage
    }

    /// A pod gets it.
    pub fn start(&mut self, passage: &mut Passage, now: Instant) {
        if passage.place == Place::InHand {
            return;
        }
        let waited = now.saturating_duration_since(passage.received);
        let entry = self.leave(passage, now);
        entry.add(passage, Place::InHand);
        entry.told.counts.waits.of(passage.lane).observe(waited);
        passage.place = Place::InHand;
    }

    /// The pod gives it back untouched, and it waits again.
    pub fn give_back(&mut self, passage: &mut Passage, now: Instant) {
        if passage.place == Place::Waiting {
            return;
        }
        self.leave(passage, now).add(passage, Place::Waiting);
        passage.place = Place::Waiting;
    }

    /// It is over: the last byte of its answer is sent, or there will be none.
    pub fn end(&mut self, passage: Passage, end: End, now: Instant) {
        let took = now.saturating_duration_since(passage.received);
        let counts = &mut self.leave(&passage, now).told.counts;
        let counter = match end {
            End::Answered { tokens } => {
                counts.answered_tokens = counts.answered_tokens.saturating_add(tokens);
                counts.latencies.of(passage.lane).observe(took);
                &mut counts.answered
            }
            End::Failed => &mut counts.failed,
            End::Refused => &mut counts.refused,
            End::Cancelled => &mut counts.cancelled,
            End::Moved => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// Somebody wants a service that has no pod: true if nobody did before, which the leader should hear at once.
    pub fn want(&mut self, service: &str, now: Instant) -> bool {
        let at = micros(now, self.began);
        let (_, entry) = self.entry(service, now);
        entry.wanted = Some(now);
        let first = entry.told.wanted.is_none();
        entry.told.wanted.get_or_insert(at);
        first
    }

    /// A pod told how many tokens a second it computes.
    pub fn rate(&mut self, service: &str, pod: &str, tokens_per_second: u64, now: Instant) {
        let (_, entry) = self.entry(service, now);
        let rates = &mut entry.told.rates;
        // As a rule there is one: each answer tells it.
        if let Some(rate) = rates.get_mut(pod) {
            *rate = tokens_per_second;
        } else if rates.len() < RATES {
            rates.insert(pod.to_owned(), tokens_per_second);
        }
    }

    /// These are the pods of a service: what others told is forgotten.
    pub fn keep_rates(&mut self, service: &str, is_pod: impl Fn(&str) -> bool) {
        let version = self.version;
        let Some(entry) = self.services.get_mut(service) else { return };
        let before = entry.told.rates.len();
        entry.told.rates.retain(|pod, _| is_pod(pod));
        if entry.told.rates.len() != before {
            entry.version = version;
        }
    }

    /// What changed since the report of version `since`, and the version of this one. The first report of a stream is since
    /// version 0, which is before everything. `is_asleep` says whether a service has no pod and would get one: once it does
    /// not, nobody wants it any more.
    pub fn report(&mut self, since: u64, now: Instant, is_asleep: impl Fn(&str) -> bool) -> (Report, u64) {
        let (version, at) = (self.version, micros(now, self.began));
        self.services.retain(|_, entry| !entry.is_forgotten(now));
        let mut services = BTreeMap::new();
        for (name, entry) in &mut self.services {
            let waits_on = |wanted: Instant| now.saturating_duration_since(wanted) < WANTED_FOR;
            let waits = entry.told.level.waiting.total() > 0;
            if entry.told.wanted.is_some() || waits {
                let is_wanted = (waits || entry.wanted.is_some_and(waits_on)) && is_asleep(name);
                if !is_wanted {
                    (entry.told.wanted, entry.wanted, entry.version) = (None, None, version);
                } else {
                    entry.told.wanted.get_or_insert(at);
                }
            }
            if entry.is_busy() {
                entry.sum(now);
                entry.version = version;
            }
            if entry.version > since {
                services.insert(name.to_string(), entry.told.clone());
            }
        }
        self.version += 1;
        (Report { epoch: self.epoch.clone(), at, services }, version)
    }

    /// What is counted of a service, with its integrals added up.
    fn entry(&mut self, service: &str, now: Instant) -> (Arc<str>, &mut Entry) {
        let (began, version) = (self.began, self.version);
        let name =
            self.services.get_key_value(service).map_or_else(|| service.into(), |(name, _)| name.clone());
        let entry = self.services.entry(name.clone()).or_insert_with(|| Entry {
            told: ServiceReport { began: micros(now, began), ..ServiceReport::default() },
            summed: now,
            wanted: None,
            touched: now,
            version,
        });
        entry.touch(now, version);
        (name, entry)
    }

    /// Takes a request from where it is.
    fn leave(&mut self, passage: &Passage, now: Instant) -> &mut Entry {
        let entry = self.services.get_mut(&passage.service).expect("what has requests is not forgotten");
        entry.touch(now, self.version);
        for (level, amount) in entry.levels(passage, passage.place) {
            *level = level.saturating_sub(amount);
        }
        entry
    }
}

fn micros(now: Instant, began: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX)
}

impl Entry {
    /// Adds the integrals up until now: what comes next changes the levels.
    fn touch(&mut self, now: Instant, version: u64) {
        self.sum(now);
        (self.touched, self.version) = (now, version);
    }

    /// Puts a request where it goes.
    fn add(&mut self, passage: &Passage, place: Place) {
        for (level, amount) in self.levels(passage, place) {
            *level = level.saturating_add(amount);
        }
    }

    /// What a request adds to the levels of a place.
    fn levels(&mut self, passage: &Passage, place: Place) -> [(&mut u64, u64); 2] {
        let level = &mut self.told.level;
        let (requests, tokens) = match place {
            Place::Waiting => (&mut level.waiting, &mut level.waiting_tokens),
            Place::InHand => (&mut level.in_hand, &mut level.in_hand_tokens),
        };
        [(requests.of(passage.lane), 1), (tokens.of(passage.lane), passage.tokens)]
    }

    fn is_busy(&self) -> bool {
        self.told.level.waiting.total() > 0 || self.told.level.in_hand.total() > 0
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        !self.is_busy() && now.saturating_duration_since(self.touched) >= FORGOTTEN_AFTER
    }

    /// Adds the time since the last call to the integrals.
    fn sum(&mut self, now: Instant) {
        let passed =
            u64::try_from(now.saturating_duration_since(self.summed).as_micros()).unwrap_or(u64::MAX);
        let (level, counts) = (&mut self.told.level, &mut self.told.counts);
        for lane in [Lane::Interactive, Lane::Bulk] {
            for (level, time) in [
                (level.waiting.of(lane), counts.waiting_time.of(lane)),
                (level.in_hand.of(lane), counts.in_hand_time.of(lane)),
            ] {
                *time = time.saturating_add(level.saturating_mul(passed));
            }
        }
        // By what was added and not to `now`: else each call would lose the part of a microsecond.
        self.summed += Duration::from_micros(passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: fn(&str) -> bool = |_| true;

    fn tally() -> (Tally, Instant) {
        let began = Instant::now();
        (Tally::new("life".into(), began), began)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_request_is_counted_from_its_coming_to_its_end() {
        let (mut tally, began) = tally();
        let mut passage = tally.arrive(Past::default(), "t/s", Lane::Interactive, 7, began + ms(10));
        tally.start(&mut passage, began + ms(30));
        tally.give_back(&mut passage, began + ms(31));
        tally.start(&mut passage, began + ms(35));
        let (report, _) = tally.report(0, began + ms(40), EVERYTHING);
        let told = &report.services["t/s"];
        assert_eq!((report.at, told.began), (40_000, 10_000));
        assert_eq!((told.level.waiting.total(), told.level.in_hand.interactive), (0, 1));
        assert_eq!((told.level.waiting_tokens.total(), told.level.in_hand_tokens.interactive), (0, 7));
        assert_eq!(told.counts.arrived_squares, 49);
        assert_eq!(told.counts.waiting_time.interactive, 24_000);
        assert_eq!(told.counts.in_hand_time.interactive, 6_000);
        tally.end(passage, End::Answered { tokens: 5 }, began + ms(90));
        let (report, _) = tally.report(0, began + ms(100), EVERYTHING);
        let counts = &report.services["t/s"].counts;
        assert_eq!(
            (counts.arrived, counts.arrived_tokens, counts.answered, counts.answered_tokens),
            (1, 7, 1, 5)
        );
        assert_eq!(counts.in_hand_time, crate::report::ByLane { interactive: 56_000, bulk: 0 });
        assert_eq!(counts.latencies.interactive.quantile(1.), Some(ms(80)));
        assert_eq!((counts.waits.interactive.total(), counts.latencies.bulk.total()), (2, 0));
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let (mut tally, began) = tally();
        let held = tally.arrive(Past::default(), "t/held", Lane::Bulk, 1, began);
        let over = tally.arrive(Past::default(), "t/over", Lane::Bulk, 1, began);
        tally.end(over, End::Cancelled, began);
        let (report, first) = tally.report(0, began, EVERYTHING);
        assert_eq!(report.services.len(), 2);
        // What waits adds up.
        let (report, second) = tally.report(first, began + ms(1), EVERYTHING);
        assert_eq!(report.services.keys().collect::<Vec<_>>(), ["t/held"]);
        tally.end(held, End::Refused, began + ms(2));
        assert_eq!(tally.report(second, began + ms(3), EVERYTHING).0.services.len(), 1);
        assert_eq!(tally.report(0, began + ms(3), EVERYTHING).0.services.len(), 2, "another stream begins");
        let later = began + ms(3) + FORGOTTEN_AFTER;
        assert_eq!(tally.report(0, later, EVERYTHING).0.services.len(), 0, "it is not kept for ever");
    }

    #[test]
    fn somebody_who_was_sent_away_is_told_of_until_there_is_a_pod_or_nobody_comes_again() {
        let (mut tally, began) = tally();
        let wanted = |tally: &mut Tally, at, asleep| {
            let (report, _) = tally.report(0, at, |_| asleep);
            report.services["t/s"].wanted
        };
        assert!(tally.want("t/s", began + ms(5)));
        assert!(!tally.want("t/s", began + ms(8)), "the leader was told");
        assert_eq!(wanted(&mut tally, began + ms(9), true), Some(5_000));
        assert_eq!(wanted(&mut tally, began + ms(8) + WANTED_FOR, true), None);
        assert!(tally.want("t/s", began + ms(90_000)));
        assert_eq!(wanted(&mut tally, began + ms(90_001), false), None, "there is a pod");
        assert!(tally.want("t/s", began + ms(90_002)), "it went to zero again");
    }

    #[test]
    fn who_waits_on_wants_it_however_long() {
        let (mut tally, began) = tally();
        let passage = tally.arrive(Past::default(), "t/s", Lane::Interactive, 1, began);
        let wanted = |tally: &mut Tally, at, asleep| tally.report(0, at, |_| asleep).0.services["t/s"].wanted;
        assert_eq!(wanted(&mut tally, began + ms(1), false), None);
        assert_eq!(wanted(&mut tally, began + ms(2), true), Some(2000), "its last pod went while it waited");
        assert_eq!(wanted(&mut tally, began + 10 * WANTED_FOR, true), Some(2000));
        tally.end(passage, End::Cancelled, began + 10 * WANTED_FOR);
        assert_eq!(wanted(&mut tally, began + 10 * WANTED_FOR, true), None);
    }

    #[test]
    fn rates_of_pods_that_are_gone_are_not_told() {
        let (mut tally, began) = tally();
        tally.rate("t/s", "a", 10, began);
        tally.rate("t/s", "b", 20, began);
        let (_, version) = tally.report(0, began, EVERYTHING);
        tally.keep_rates("t/s", |pod| pod == "b");
        let (report, _) = tally.report(version, began, EVERYTHING);
        assert_eq!(report.services["t/s"].rates, [("b".to_owned(), 20)].into());
    }
}
