//! What a gateway tells the leader about the services it has requests for: lines of JSON, over one connection that stays.
//!
//! The first line tells of every active service, a later one of those that something happened to since the line before;
//! of a service that a line leaves out nothing has changed, and nothing waits. Counters begin at 0 when the service becomes
//! active in this life of the gateway and only grow, so that a line that is lost is made up for by the next. Times are
//! microseconds of the gateway's own monotonic clock since its [`epoch`](Report::epoch) began.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{histogram::Histogram, wire::Lane};

/// Port of a gateway on which the rest of kembed speaks to it.
pub const INTERNAL_PORT: u16 = 8082;

/// Path of the reports on that port.
pub const LOAD_PATH: &str = "/internal/load";

/// What the token of whoever asks for reports must be made for.
pub const GATEWAY_AUDIENCE: &str = "kembed-gateway";

/// Bytes that one line may have: 5,000 busy services take less than half of it.
pub const LINE_LIMIT: usize = 16 << 20;

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Names this life of this gateway: all counters begin anew with another.
    pub epoch: String,
    /// When this was counted.
    pub at: u64,
    /// By `<namespace>/<name>`.
    pub services: BTreeMap<String, ServiceReport>,
}

/// What a gateway has counted of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceReport {
    /// Since when the counters count.
    pub began: u64,
    /// What was counted since then.
    pub counts: Counts,
    /// What is there now.
    pub level: Level,
    /// Since when somebody waits for the service though it has no pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u64>,
    /// Tokens a second that each pod said to compute, by its name. A pod that was not measured is not here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, u64>,
}

/// Requests that are there at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Level {
    /// No pod has them yet.
    pub waiting: ByLane<u64>,
    /// A pod has them.
    pub in_hand: ByLane<u64>,
    /// Tokens of those that wait, as estimated from their size.
    pub waiting_tokens: ByLane<u64>,
    /// Tokens of those that pods have, as estimated from their size.
    pub in_hand_tokens: ByLane<u64>,
}

/// What only grows. Each request that arrived is answered, failed, refused or cancelled in the end, and until then it waits or
/// is in hand: in the sum over all gateways, for one that moves arrives at the first and ends at the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests that came, and had not been let in by another gateway.
    pub arrived: u64,
    /// Requests that a pod answered.
    pub answered: u64,
    /// Requests that went to a pod and got no answer, or its failure.
    pub failed: u64,
    /// Requests that the gateway refused.
    pub refused: u64,
    /// Requests whose client left.
    pub cancelled: u64,
    /// Tokens of the requests that came, as estimated from their size.
    pub arrived_tokens: u64,
    /// The sum of the squares of these: with the sum itself, how much requests differ in size.
    pub arrived_squares: u64,
    /// Tokens of answered requests, as their pods counted them.
    pub answered_tokens: u64,
    /// Requests that wait, summed over time: request-microseconds.
    pub waiting_time: ByLane<u64>,
    /// Requests that pods have, summed over time: request-microseconds.
    pub in_hand_time: ByLane<u64>,
    /// Time from when the request came until a pod got it.
    pub waits: ByLane<Histogram>,
    /// Time from when the request came to the last byte of its answer, of those that a pod answered.
    pub latencies: ByLane<Histogram>,
}

/// The same for either lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ByLane<T> {
    /// Somebody waits for the answer.
    pub interactive: T,
    /// Nobody does.
    pub bulk: T,
}

impl<T> ByLane<T> {
    /// That of a lane, to be changed.
    pub fn of(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    fn zip(&self, other: &Self, combine: impl Fn(&T, &T) -> T) -> Self {
        Self {
            interactive: combine(&self.interactive, &other.interactive),
            bulk: combine(&self.bulk, &other.bulk),
        }
    }
}

impl ByLane<u64> {
    /// Both lanes.
    pub fn total(&self) -> u64 {
        self.interactive.saturating_add(self.bulk)
    }
}

impl Report {
    /// As one line with its end.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("strings and numbers always serialise");
        line.push('\n');
        line
    }
}

impl Counts {
    /// The sum; it stays at the largest number rather than begin again at 0.
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// What was added since `earlier`; a counter that fell, which none does, adds nothing.
    pub fn since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// The given part of each, rounded down.
    pub(crate) fn part(&self, part: u64, of: u64) -> Self {
        let share = |count: u64| u64::try_from(u128::from(count) * u128::from(part) / u128::from(of.max(1)));
        self.zip(self, |count, _| share(count).unwrap_or(u64::MAX))
    }

    fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        let numbers = |a: &ByLane<u64>, b: &ByLane<u64>| a.zip(b, |a, b| combine(*a, *b));
        let histograms = |a: &ByLane<Histogram>, b: &ByLane<Histogram>| a.zip(b, |a, b| a.zip(b, combine));
        Self {
            arrived: combine(self.arrived, other.arrived),
            answered: combine(self.answered, other.answered),
            failed: combine(self.failed, other.failed),
            refused: combine(self.refused, other.refused),
            cancelled: combine(self.cancelled, other.cancelled),
            arrived_tokens: combine(self.arrived_tokens, other.arrived_tokens),
            arrived_squares: combine(self.arrived_squares, other.arrived_squares),
            answered_tokens: combine(self.answered_tokens, other.answered_tokens),
            waiting_time: numbers(&self.waiting_time, &other.waiting_time),
            in_hand_time: numbers(&self.in_hand_time, &other.in_hand_time),
            waits: histograms(&self.waits, &other.waits),
            latencies: histograms(&self.latencies, &other.latencies),
        }
    }
}

impl Level {
    /// The sum.
    pub fn plus(&self, other: &Self) -> Self {
        let add = |a: &u64, b: &u64| a.saturating_add(*b);
        Self {
            waiting: self.waiting.zip(&other.waiting, add),
            in_hand: self.in_hand.zip(&other.in_hand, add),
            waiting_tokens: self.waiting_tokens.zip(&other.waiting_tokens, add),
            in_hand_tokens: self.in_hand_tokens.zip(&other.in_hand_tokens, add),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_read_back_and_has_one_end() {
        let mut service = ServiceReport { began: 5, wanted: Some(7), ..ServiceReport::default() };
        service.counts.arrived = u64::MAX;
        service.counts.waits.bulk.observe(Duration::from_millis(3));
        service.rates.insert("minilm-1".into(), 4210);
        let services = [("team/minilm".to_owned(), service)].into();
        let report = Report { epoch: "a".into(), at: 9, services };
        let line = report.to_line();
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        assert_eq!(serde_json::from_str::<Report>(&line).expect("our own line"), report);
    }

    #[test]
    fn a_later_gateway_may_tell_more_and_an_earlier_one_less() {
        let line = r#"{"epoch": "a", "at": 1, "services": {"t/s": {"counts": {"arrived": 2, "dreamt": 7}}}, "x": 1}"#;
        let report: Report = serde_json::from_str(line).expect("a report");
        assert_eq!(report.services["t/s"].counts, Counts { arrived: 2, ..Counts::default() });
    }

    /// A line that its reader refuses would leave the leader without knowledge for ever.
    #[test]
    fn five_thousand_busy_services_fit_into_a_line() {
        let mut busy = ServiceReport::default();
        for lane in [Lane::Interactive, Lane::Bulk] {
            for ms in 0..3000 {
                busy.counts.waits.of(lane).observe(Duration::from_millis(ms * ms / 10));
                busy.counts.latencies.of(lane).observe(Duration::from_millis(ms * ms / 10));
            }
        }
        let name = |number| format!("a-namespace-of-some-length/a-service-of-some-length-{number}");
        let services = (0..5000).map(|number| (name(number), busy.clone())).collect();
        let line = Report { services, ..Report::default() }.to_line();
        assert!(line.len() < LINE_LIMIT / 2, "{}", line.len());
    }

    #[test]
    fn numbers_stay_where_they_would_overflow() {
        let full = Counts { arrived: u64::MAX, ..Counts::default() };
        assert_eq!(full.plus(&full), full);
        assert_eq!(Counts::default().since(&full), Counts::default());
        assert_eq!(full.part(1, 2).arrived, u64::MAX / 2);
        assert_eq!(full.part(7, 0).arrived, u64::MAX);
    }
}
