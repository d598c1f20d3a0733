//! What is tried, and what is measured of it.

use std::time::Duration;

use kembed_queue::wire::Lane;

use crate::policy::Policy;
use crate::world::{Outcome, Request, Scenario, World};

/// Tokens that a pod takes at once of a lane: four batches for each of its two sessions.
pub const CREDIT: u64 = 2048;

const SECOND: Duration = Duration::from_secs(1);

/// Requests that come before are not measured.
const WARM: Duration = Duration::from_secs(5);

/// Requests and tokens a second that a pod with a backlog answers.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub requests: f64,
    pub tokens: f64,
}

/// Time from a request to its answer in milliseconds, of interactive requests.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Pods and gateways.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub pods: usize,
    /// Whether one of the pods has half the speed.
    pub slow: bool,
    pub gateways: usize,
    /// Whether in the middle another gateway becomes the owner.
    pub moves: bool,
}

fn scenario(policy: Policy, setting: Setting, seconds: u32) -> Scenario {
    let mut pods = vec![(1., Duration::ZERO); setting.pods];
    if setting.slow {
        pods[0].0 = 0.5;
    }
    let lasts = SECOND * seconds;
    Scenario {
        policy,
        seed: 1,
        pods,
        gateways: setting.gateways,
        credit: CREDIT,
        rate: 0.,
        backlog: 0,
        bulk: 0,
        deadline: None,
        queue_timeout: 600 * SECOND,
        room: 1_000_000,
        moves: setting.moves.then_some(lasts / 2),
        lasts,
    }
}

/// One pod with a backlog of so many requests.
pub fn capacity(credit: u64, backlog: usize) -> Capacity {
    let one = Setting { pods: 1, slow: false, gateways: 1, moves: false };
    let outcome = World::run(Scenario { credit, backlog, ..scenario(Policy::Credit, one, 0) });
    let seconds = end(&outcome).as_secs_f64();
    Capacity { requests: backlog as f64 / seconds, tokens: outcome.done[0] as f64 / seconds }
}

/// `load` is a share of the capacity of all pods.
pub fn balance(policy: Policy, setting: Setting, load: f64, capacity: Capacity, seconds: u32) -> Latency {
    let scenario = scenario(policy, setting, seconds);
    let speed: f64 = scenario.pods.iter().map(|(speed, _)| speed).sum();
    let outcome = World::run(Scenario { rate: load * capacity.requests * speed, ..scenario });
    latency(&outcome)
}

/// Interactive requests alone, and with bulk that takes all that is left; and the share of the pods' capacity that is
/// used then.
pub fn beside_bulk(pods: usize, load: f64, capacity: Capacity, seconds: u32) -> (Latency, Latency, f64) {
    let setting = Setting { pods, slow: false, gateways: 1, moves: false };
    let alone = Scenario {
        rate: load * capacity.requests * pods as f64,
        ..scenario(Policy::Credit, setting, seconds)
    };
    let beside = World::run(Scenario { bulk: 50 * pods, ..alone.clone() });
    let done: u64 = beside.done.iter().sum();
    let used = done as f64 / end(&beside).as_secs_f64() / capacity.tokens / pods as f64;
    (latency(&World::run(alone)), latency(&beside), used)
}

/// What a pod gets that joins three others after a second, when 2,000 requests wait.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// Milliseconds until it first has nine tenths as much in hand as the others have on average.
    pub share: Option<f64>,
    /// Its part of all tokens that are computed.
    pub part: f64,
    /// Seconds until all are answered.
    pub drained: f64,
}

pub fn joins(policy: Policy) -> Joined {
    let setting = Setting { pods: 4, slow: false, gateways: 1, moves: false };
    let mut scenario = Scenario { backlog: 2000, ..scenario(policy, setting, 0) };
    scenario.pods[3].1 = SECOND;
    let outcome = World::run(scenario);
    let all: u64 = outcome.done.iter().sum();
    Joined {
        share: outcome.shared[3].map(|time| time.as_secs_f64() * 1e3),
        part: outcome.done[3] as f64 / all as f64,
        drained: end(&outcome).as_secs_f64(),
    }
}

/// Three times as many requests as can be answered, of clients that say how long they wait.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// Share of the capacity that goes into answers which come in time.
    pub goodput: f64,
    /// Share of the requests that were let in whose answer comes in time.
    pub in_time: f64,
    /// Share of the refused that were refused at once.
    pub at_once: f64,
    /// Share of the refused that were told a wait which is right within 30 %.
    pub right: f64,
}

pub fn overload(pods: usize, deadline: Duration, capacity: Capacity, seconds: u32) -> Overload {
    let setting = Setting { pods, slow: false, gateways: 1, moves: false };
    let rate = 3. * capacity.requests * pods as f64;
    let scenario = scenario(Policy::Credit, setting, seconds);
    let outcome = World::run(Scenario { rate, deadline: Some(deadline), ..scenario });
    let warm = WARM + deadline;
    let measured = || outcome.requests.iter().filter(move |request| request.came >= warm);
    let in_time = |request: &&Request| request.answered.is_some_and(|at| at <= request.came + deadline);
    let good: u64 = measured().filter(in_time).map(|request| request.sent.tokens()).sum();
    let time = (SECOND * seconds - warm).as_secs_f64();
    let refused = || measured().filter(|request| request.refused.is_some());
    let at_once = refused().filter(|request| request.refused.is_some_and(|(at, _)| at == request.came));
    Overload {
        goodput: good as f64 / time / capacity.tokens / pods as f64,
        in_time: share(
            measured().filter(in_time).count(),
            measured().filter(|r| r.answered.is_some()).count(),
        ),
        at_once: share(at_once.count(), refused().count()),
        right: right(&outcome, warm),
    }
}

/// Whoever is refused would have been granted after the last one that was let in before.
fn right(outcome: &Outcome, warm: Duration) -> f64 {
    let (mut last, mut right, mut all) = (Duration::ZERO, 0, 0);
    for request in &outcome.requests {
        last = last.max(request.granted.unwrap_or_default());
        let Some((at, Some(told))) = request.refused.filter(|(at, _)| *at >= warm) else { continue };
        let wait = last.saturating_sub(at).as_secs_f64();
        all += 1;
        right += usize::from((told.as_secs_f64() - wait).abs() <= 0.3 * wait);
    }
    share(right, all)
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

fn end(outcome: &Outcome) -> Duration {
    outcome.requests.iter().filter_map(|request| request.answered).max().unwrap_or_default()
}

fn latency(outcome: &Outcome) -> Latency {
    let measured = outcome.requests.iter().filter(|r| r.sent.lane == Lane::Interactive && r.came >= WARM);
    let mut all: Vec<_> = measured
        .map(|request| {
            let answered = request.answered.expect("nothing is refused or lost");
            (answered - request.came).as_secs_f64() * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    let at = |q: f64| all[(all.len() as f64 * q) as usize];
    Latency { p50: at(0.5), p99: at(0.99) }
}
