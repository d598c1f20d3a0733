//! What all gateways together have told: joined into what happened to each service over time, and what is there now. The
//! caller brings the time.
//!
//! Each gateway counts for itself, so that sums stay right wherever a service's requests go. Of a gateway that says nothing
//! it is not known what happens there: then [`Fleet::step`] says so rather than count it as nothing, and what it counted
//! meanwhile comes with its next word. Only what a gateway counted in the second before it died is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    report::{Counts, Level, Report, ServiceReport},
    tally::{FORGOTTEN_AFTER, WANTED_FOR},
};

/// A gateway whose last word is older than this is silent: it speaks each second.
pub const FRESH: Duration = Duration::from_secs(3);

/// How much a gateway's clock may seem to fall behind ours from one report to the next. Between clocks of two machines it
/// is a thousandth of that; what seems to be more is a report that was long on its way.
const DRIFT: Duration = Duration::from_millis(1);

/// Gateways that are remembered though they are not followed: one may come back with counters that go on.
const REMEMBERED: usize = 64;

/// Stretches of time of one service that are kept apart while they cannot be told. More are drawn together.
const STRETCHES: usize = 16;

/// Joins the reports of all gateways.
#[derive(Debug)]
pub struct Fleet {
    began: Instant,
    /// Until when all was told.
    told: Option<Instant>,
    /// Whether it is known which gateways there are.
    listed: bool,
    gateways: BTreeMap<String, Gateway>,
    /// By service, what was counted and not yet told.
    pending: BTreeMap<String, Vec<Stretch>>,
}

/// What happened between two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The end of the step before. Of the first step, which has no length, its end.
    pub from: Instant,
    /// Until then all gateways have told what they counted.
    pub to: Instant,
    /// What was counted in between, by service; nothing happened to a service that is not here.
    pub services: BTreeMap<String, Counts>,
}

/// It is not known what happens now, and must not be taken for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The gateways that are silent; none if it is not even known which there are.
    pub silent: Vec<String>,
}

#[derive(Debug)]
struct Gateway {
    followed: bool,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    epoch: String,
    /// The moment by our clock at which its clock began, as told by the report that was fastest on its way.
    zero: Instant,
    at: u64,
    services: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    report: ServiceReport,
    heard: Instant,
}

#[derive(Debug)]
struct Stretch {
    from: Instant,
    to: Instant,
    counts: Counts,
}

impl Fleet {
    /// Knows nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, told: None, listed: false, gateways: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// These are the gateways that must be heard for anything to be known.
    pub fn follow(&mut self, gateways: &BTreeSet<String>) {
        self.listed = true;
        for (name, gateway) in &mut self.gateways {
            gateway.followed = gateways.contains(name);
        }
        for name in gateways {
            self.gateways.entry(name.clone()).or_insert(Gateway { followed: true, life: None });
        }
        let left = self.gateways.values().filter(|gateway| !gateway.followed).count();
        let mut surplus = left.saturating_sub(REMEMBERED);
        self.gateways.retain(|_, gateway| {
            let goes = !gateway.followed && surplus > 0;
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Takes in what a gateway told. False if that is of no use: the gateway is not followed, or it told more already.
    pub fn receive(&mut self, gateway: &str, report: Report, now: Instant) -> bool {
        let Some(gateway) = self.gateways.get_mut(gateway).filter(|gateway| gateway.followed) else {
            return false;
        };
        let Report { epoch, at, services } = report;
        if gateway.life.as_ref().is_some_and(|life| life.epoch == epoch && at <= life.at) {
            return false;
        }
        let known = gateway.life.take().filter(|life| life.epoch == epoch);
        let last_word = known.as_ref().map(|life| life.moment(life.at));
        let mut life = known.unwrap_or_else(|| Life::new(epoch, before(now, at)));
        (life.at, life.zero) = (at, before(now, at).min(life.zero + DRIFT));
        for (name, report) in services {
            let counts = life.news(&name, &report, last_word, self.began);
            if let Some(stretch) = counts.filter(|stretch| stretch.counts != Counts::default()) {
                keep(self.pending.entry(name.clone()).or_default(), stretch);
            }
            life.services.insert(name, Known { report, heard: now });
        }
        // A gateway forgets a service before, and counts anew if it comes again.
        life.services.retain(|_, known| now.saturating_duration_since(known.heard) < 2 * FORGOTTEN_AFTER);
        gateway.life = Some(life);
        true
    }

    /// What happened since the last step, as far as all gateways have told it.
    ///
    /// # Errors
    /// If a gateway is silent, or it is not known which there are.
    pub fn step(&mut self, now: Instant) -> Result<Step, Unknown> {
        let mut to = now;
        let mut silent = Vec::new();
        for (name, gateway) in self.gateways.iter().filter(|(_, gateway)| gateway.followed) {
            match &gateway.life {
                Some(life) if life.is_fresh(now) => to = to.min(life.moment(life.at)),
                _ => silent.push(name.clone()),
            }
        }
        if !self.listed || !silent.is_empty() {
            return Err(Unknown { silent });
        }
        let from = self.told.unwrap_or(to);
        let to = to.max(from);
        self.told = Some(to);
        let mut services = BTreeMap::new();
        self.pending.retain(|name, stretches| {
            let counts = take(stretches, to);
            if counts != Counts::default() {
                services.insert(name.clone(), counts);
            }
            !stretches.is_empty()
        });
        Ok(Step { from, to, services })
    }

    /// Services for which somebody waits though they have no pod, by the last word of each gateway.
    pub fn wanted(&self, now: Instant) -> BTreeSet<&str> {
        let lives =
            self.lives().filter(|life| now.saturating_duration_since(life.moment(life.at)) < WANTED_FOR);
        let services = lives.flat_map(|life| &life.services);
        services.filter(|(_, known)| known.report.wanted.is_some()).map(|(name, _)| name.as_str()).collect()
    }

    /// Requests of a service that are there, by the last word of each gateway.
    pub fn level(&self, service: &str) -> Level {
        let levels = self.lives().filter_map(|life| life.services.get(service));
        levels.fold(Level::default(), |sum, known| sum.plus(&known.report.level))
    }

    /// Tokens a second that each pod of a service computes, by its name; the latest word counts.
    pub fn rates(&self, service: &str) -> BTreeMap<&str, u64> {
        let mut told: Vec<&Known> = self.lives().filter_map(|life| life.services.get(service)).collect();
        told.sort_by_key(|known| known.heard);
        let rates = told.into_iter().flat_map(|known| &known.report.rates);
        rates.map(|(pod, rate)| (pod.as_str(), *rate)).collect()
    }

    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.gateways.values().filter(|gateway| gateway.followed).filter_map(|gateway| gateway.life.as_ref())
    }
}

impl Life {
    fn new(epoch: String, zero: Instant) -> Self {
        Self { epoch, zero, at: 0, services: BTreeMap::new() }
    }

    /// What a service's report adds to what it told at its last word. With its first, that is all it counted, unless it
    /// did so before we led: another leader has had that.
    fn news(
        &self,
        service: &str,
        report: &ServiceReport,
        last_word: Option<Instant>,
        led: Instant,
    ) -> Option<Stretch> {
        let (begin, to) = (self.moment(report.began), self.moment(self.at));
        let known = self.services.get(service).filter(|known| known.report.began == report.began);
        let (from, counts) = match (last_word, known) {
            (Some(last_word), Some(known)) => (last_word, report.counts.since(&known.report.counts)),
            (Some(last_word), None) => (begin.max(last_word), report.counts),
            (None, _) if begin < led => return None,
            (None, _) => (begin, report.counts),
        };
        Some(Stretch { from: from.min(to), to, counts })
    }

    /// A time of its clock, by ours.
    fn moment(&self, at: u64) -> Instant {
        self.zero.checked_add(Duration::from_micros(at)).unwrap_or(self.zero)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.moment(self.at)) < FRESH
    }
}

/// So many microseconds before.
fn before(now: Instant, micros: u64) -> Instant {
    now.checked_sub(Duration::from_micros(micros)).unwrap_or(now)
}

fn keep(stretches: &mut Vec<Stretch>, new: Stretch) {
    if stretches.len() < STRETCHES {
        stretches.push(new);
    } else if let Some(last) = stretches.last_mut() {
        last.from = last.from.min(new.from);
        last.to = last.to.max(new.to);
        last.counts = last.counts.plus(&new.counts);
    }
}

/// Takes what was counted until `to`. Of a stretch that goes on after it, the part that its time has in it.
fn take(stretches: &mut Vec<Stretch>, to: Instant) -> Counts {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut taken = Counts::default();
    stretches.retain_mut(|stretch| {
        if stretch.to <= to {
            taken = taken.plus(&stretch.counts);
            return false;
        }
        if stretch.from < to {
            let part = stretch.counts.part(micros(to - stretch.from), micros(stretch.to - stretch.from));
            taken = taken.plus(&part);
            (stretch.from, stretch.counts) = (to, stretch.counts.since(&part));
        }
        true
    });
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "t/s";

    /// A fleet that follows the gateways `a` and `b`, and a moment.
    fn fleet() -> (Fleet, Instant) {
        let now = Instant::now();
        let mut fleet = Fleet::new(now);
        fleet.follow(&both());
        (fleet, now)
    }

    fn both() -> BTreeSet<String> {
        BTreeSet::from(["a".into(), "b".into()])
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// So many requests arrived since the service became active at 0, by the gateway's clock.
    fn report(epoch: &str, at: u64, arrived: u64) -> Report {
        let counts = Counts { arrived, ..Counts::default() };
        let services = [(SERVICE.to_owned(), ServiceReport { counts, ..ServiceReport::default() })].into();
        Report { epoch: epoch.into(), at: at * 1_000_000, services }
    }

    fn quiet(epoch: &str, at: u64) -> Report {
        Report { services: BTreeMap::new(), ..report(epoch, at, 0) }
    }

    fn arrived(step: Result<Step, Unknown>) -> u64 {
        step.expect("all speak").services.get(SERVICE).map_or(0, |counts| counts.arrived)
    }

    #[test]
    fn nothing_is_known_before_every_gateway_spoke_and_while_one_is_silent() {
        let (mut fleet, now) = fleet();
        fleet.receive("a", report("x", 0, 0), now);
        assert_eq!(fleet.step(now), Err(Unknown { silent: vec!["b".into()] }));
        fleet.receive("b", quiet("y", 0), now);
        assert_eq!(arrived(fleet.step(now)), 0);
        for at in 1..=4 {
            fleet.receive("a", report("x", at, 10 * at), now + s(at));
        }
        assert_eq!(fleet.step(now + s(4)), Err(Unknown { silent: vec!["b".into()] }));
        fleet.receive("b", quiet("y", 4), now + s(4));
        assert_eq!(arrived(fleet.step(now + s(4))), 40, "what was counted meanwhile comes late, and whole");
        fleet.receive("a", report("x", 5, 50), now + s(5));
        fleet.follow(&BTreeSet::from(["a".into()]));
        assert_eq!(
            arrived(fleet.step(now + s(8) - Duration::from_millis(1))),
            10,
            "b is gone, and missed no more"
        );
    }

    #[test]
    fn what_one_gateway_told_earlier_waits_for_the_others() {
        let (mut fleet, now) = fleet();
        fleet.receive("a", report("x", 0, 0), now);
        fleet.receive("b", quiet("y", 0), now);
        fleet.step(now).expect("both speak");
        fleet.receive("a", report("x", 2, 20), now + s(2));
        fleet.receive("b", quiet("y", 1), now + s(1));
        let step = fleet.step(now + s(2)).expect("both speak");
        assert_eq!((step.to, step.services[SERVICE].arrived), (now + s(1), 10));
    }

    #[test]
    fn lines_that_were_long_on_their_way_are_no_burst() {
        let (mut fleet, now) = fleet();
        fleet.follow(&BTreeSet::from(["a".into()]));
        fleet.receive("a", report("x", 0, 0), now);
        fleet.step(now).expect("it speaks");
        // This process was stopped for a minute, and reads what lay in the socket.
        let later = now + s(60);
        for at in 1..=60 {
            fleet.receive("a", report("x", at, at), later);
            let Ok(step) = fleet.step(later) else { continue };
            let (told, length) = (step.services[SERVICE].arrived as f64, step.to - step.from);
            assert!((told - length.as_secs_f64()).abs() < 0.1, "{told} in {length:?}");
        }
        assert!(fleet.told.is_some_and(|told| later - told < s(1)), "it has caught up");
    }

    #[test]
    fn a_clock_that_is_slow_does_not_fall_behind() {
        let (mut fleet, now) = fleet();
        fleet.follow(&BTreeSet::from(["a".into()]));
        // A hundred times as wrong as clocks of computers are.
        let real = |at: u64| now + s(at) + Duration::from_micros(500 * at);
        for at in 0..3600 {
            fleet.receive("a", quiet("x", at), real(at));
        }
        let step = fleet.step(real(3599)).expect("it speaks");
        assert!(real(3599) - step.to < Duration::from_millis(1), "{:?}", real(3599) - step.to);
    }

    #[test]
    fn what_another_leader_had_is_not_counted_again_and_a_new_life_is() {
        let (mut fleet, now) = fleet();
        fleet.follow(&BTreeSet::from(["a".into()]));
        fleet.receive("a", report("x", 100, 1000), now);
        assert_eq!(arrived(fleet.step(now)), 0);
        fleet.receive("a", report("z", 1, 7), now + s(2));
        assert_eq!(arrived(fleet.step(now + s(2))), 7, "it died, and began again a second ago");
    }

    #[test]
    fn a_gateway_that_comes_back_goes_on_where_it_was() {
        let (mut fleet, now) = fleet();
        fleet.receive("a", report("x", 1, 10), now + s(1));
        fleet.follow(&BTreeSet::new());
        assert!(!fleet.receive("a", report("x", 2, 20), now + s(2)), "it is not followed");
        assert_eq!(arrived(fleet.step(now + s(2))), 10);
        fleet.follow(&BTreeSet::from(["a".into()]));
        assert!(fleet.receive("a", report("x", 9, 90), now + s(9)));
        assert!(!fleet.receive("a", report("x", 9, 90), now + s(9)), "it was told");
        assert_eq!(arrived(fleet.step(now + s(9))), 80);
    }

    #[test]
    fn a_service_that_was_forgotten_counts_anew() {
        let (mut fleet, now) = fleet();
        fleet.follow(&BTreeSet::from(["a".into()]));
        fleet.receive("a", report("x", 0, 0), now);
        fleet.receive("a", report("x", 1, 10), now + s(1));
        let mut again = report("x", 2, 3);
        again.services.get_mut(SERVICE).expect("it is told").began = 1_500_000;
        fleet.receive("a", again, now + s(2));
        assert_eq!(arrived(fleet.step(now + s(2))), 13);
    }

    #[test]
    fn who_waits_is_known_though_another_gateway_is_silent() {
        let (mut fleet, now) = fleet();
        let mut wanted = report("x", 1, 1);
        wanted.services.get_mut(SERVICE).expect("it is told").wanted = Some(1);
        fleet.receive("a", wanted, now);
        assert_eq!(fleet.wanted(now), BTreeSet::from([SERVICE]));
        assert_eq!(fleet.wanted(now + WANTED_FOR), BTreeSet::new(), "that was long ago");
        fleet.follow(&BTreeSet::from(["b".into()]));
        assert_eq!(fleet.wanted(now), BTreeSet::new());
    }

    #[test]
    fn memory_is_bounded_by_what_is_there() {
        let (mut fleet, now) = fleet();
        for life in 0..1000 {
            fleet.follow(&BTreeSet::from([life.to_string()]));
            fleet.receive(&life.to_string(), report("x", 1, 1), now + s(2));
        }
        assert!(fleet.gateways.len() <= REMEMBERED + 2);
        assert!(fleet.pending[SERVICE].len() <= STRETCHES);
    }
}
