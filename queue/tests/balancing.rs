//! The goals of balancing, held on shorter runs of what `cargo bench -p kembed-queue --bench balancing` prints.
//!
//! Where no request waits, the slowest hundredth takes what the longest text takes alone, 37 ms, however it is balanced:
//! so goals that compare are held where somebody waits.

#[path = "../benches/balancing/experiments.rs"]
mod experiments;
#[path = "../benches/balancing/pod.rs"]
mod pod;
#[path = "../benches/balancing/policy.rs"]
mod policy;
#[path = "../benches/balancing/random.rs"]
mod random;
#[path = "../benches/balancing/traffic.rs"]
mod traffic;
#[path = "../benches/balancing/world.rs"]
mod world;

use std::time::Duration;

use experiments::{CREDIT, Capacity, Latency, Setting, balance, beside_bulk, capacity, joins, overload};
use policy::Policy;

/// Simulated seconds.
const SECONDS: u32 = 40;

const FOUR: Setting = Setting { pods: 4, slow: false, gateways: 1, moves: false };

fn full() -> Capacity {
    capacity(CREDIT, 4000)
}

fn measure(policy: Policy, setting: Setting, load: f64) -> Latency {
    balance(policy, setting, load, full(), SECONDS)
}

fn p99(policy: Policy, setting: Setting, load: f64) -> f64 {
    measure(policy, setting, load).p99
}

#[test]
fn no_slower_than_any_other() {
    let eight = Setting { pods: 8, ..FOUR };
    for (setting, load) in [(FOUR, 0.5), (FOUR, 0.8), (eight, 0.95)] {
        let ours = measure(Policy::Credit, setting, load);
        for policy in [Policy::RoundRobin, Policy::Random, Policy::TwoChoices, Policy::LeastConnections] {
            let theirs = measure(policy, setting, load);
            assert!(ours.p99 <= 1.01 * theirs.p99, "{setting:?} at {load}: {ours:?}, {policy:?} {theirs:?}");
            assert!(ours.p50 <= 1.05 * theirs.p50, "{setting:?} at {load}: {ours:?}, {policy:?} {theirs:?}");
        }
    }
}

#[test]
fn a_slow_pod_is_given_less() {
    for gateways in [1, 3] {
        let setting = Setting { slow: true, gateways, ..FOUR };
        let ours = p99(Policy::Credit, setting, 0.8);
        for (policy, ratio) in [(Policy::LeastConnections, 0.85), (Policy::RoundRobin, 0.6)] {
            let theirs = p99(policy, setting, 0.8);
            assert!(ours <= ratio * theirs, "{gateways} gateways, {policy:?}: {ours} ms, {theirs} ms");
        }
    }
}

#[test]
fn nobody_feels_it_when_the_owner_changes() {
    let three = Setting { gateways: 3, ..FOUR };
    let (stays, moves) =
        (p99(Policy::Credit, three, 0.9), p99(Policy::Credit, Setting { moves: true, ..three }, 0.9));
    assert!(moves <= 1.05 * stays, "{moves} ms, {stays} ms");
}

#[test]
fn bulk_is_hardly_felt_and_uses_what_is_left() {
    let (alone, beside, used) = beside_bulk(4, 0.5, full(), SECONDS);
    assert!(beside.p99 <= 1.5 * alone.p99, "{beside:?} beside bulk, {alone:?} alone");
    assert!(used >= 0.95, "pods are used to {used}");
}

#[test]
fn a_pod_that_joins_has_its_share_within_the_time_of_a_batch() {
    let ours = joins(Policy::Credit);
    let share = ours.share.expect("it gets its share");
    assert!(share <= pod::batch_time(256).as_secs_f64() * 1e3, "{ours:?}");
    // Three pods work for a second before it comes, and four until the end.
    let fair = (ours.drained - 1.) / (3. + 4. * (ours.drained - 1.));
    assert!(ours.part >= 0.95 * fair, "{ours:?}, {fair} is fair");
    assert!(joins(Policy::LeastConnections).share.is_none(), "everything was given away before it came");
}

#[test]
fn overload_costs_nothing_and_whoever_is_refused_is_told_the_truth() {
    let overload = overload(4, Duration::from_secs(2), full(), SECONDS);
    assert!(overload.goodput >= 0.95, "{overload:?}");
    assert!(overload.in_time >= 0.95, "{overload:?}");
    assert!(overload.at_once >= 0.99, "{overload:?}");
    assert!(overload.right >= 0.95, "{overload:?}");
}
