//! Prints the tables of docs/benchmarks/balancing.md: `cargo bench -p kembed-queue --bench balancing`.

mod experiments;
mod pod;
mod policy;
mod random;
mod traffic;
mod world;

use std::time::Duration;

use experiments::{CREDIT, Capacity, Setting, balance, beside_bulk, capacity, joins, overload};
use policy::Policy;

const POLICIES: [(Policy, &str); 5] = [
    (Policy::RoundRobin, "round robin"),
    (Policy::Random, "random"),
    (Policy::TwoChoices, "two choices"),
    (Policy::LeastConnections, "least connections"),
    (Policy::Credit, "**kembed**"),
];

/// Simulated seconds of each load.
const SECONDS: u32 = 300;

fn main() {
    let full = capacity(CREDIT, 20_000);
    capacities();
    settings(full);
    bulk(full);
    joining();
    overloading(full);
}

fn capacities() {
    println!("| credit, tokens | requests/s | tokens/s |\n|---|---|---|");
    for credit in [256, 512, 1024, CREDIT, 4096, 1 << 20] {
        let Capacity { requests, tokens } = capacity(credit, 20_000);
        println!("| {credit} | {requests:.0} | {tokens:.0} |");
    }
}

fn settings(full: Capacity) {
    let names: Vec<_> = POLICIES.iter().map(|(_, name)| *name).collect();
    let rule = "|---".repeat(POLICIES.len() + 3);
    println!(
        "\n| pods | load | {} | to least connections | to round robin |\n{rule}|---|",
        names.join(" | ")
    );
    for gateways in [1, 3] {
        for (slow, moves) in [(false, false), (true, false), (false, true)] {
            // With one gateway there is nobody to move to.
            if moves && gateways == 1 {
                continue;
            }
            for pods in [4, 8] {
                for load in [0.5, 0.7, 0.8, 0.9, 0.95] {
                    row(Setting { pods, slow, gateways, moves }, load, full);
                }
            }
        }
    }
}

fn row(setting: Setting, load: f64, full: Capacity) {
    let all = POLICIES.map(|(policy, _)| balance(policy, setting, load, full, SECONDS));
    let cells: Vec<_> =
        all.iter().map(|latency| format!("{:.0} / {:.0}", latency.p50, latency.p99)).collect();
    let [round, _, _, least, ours] = all;
    let Setting { pods, slow, gateways, moves } = setting;
    let slow = if slow { ", one slow" } else { "" };
    let moves = if moves { ", the owner changes" } else { "" };
    let gateways = if gateways == 1 { ", 1 gateway".to_owned() } else { format!(", {gateways} gateways") };
    println!(
        "| {pods}{slow}{gateways}{moves} | {:.0} % | {} | {:.2} | {:.2} |",
        load * 100.,
        cells.join(" | "),
        ours.p99 / least.p99,
        ours.p99 / round.p99
    );
}

fn bulk(full: Capacity) {
    println!(
        "\n| pods | interactive load | alone | beside bulk | p99 ratio | pods used |\n|---|---|---|---|---|---|"
    );
    for (pods, load) in [(4, 0.3), (4, 0.5), (4, 0.7), (8, 0.5), (8, 0.7)] {
        let (alone, beside, used) = beside_bulk(pods, load, full, SECONDS);
        println!(
            "| {pods} | {:.0} % | {:.0} / {:.0} | {:.0} / {:.0} | {:.2} | {:.0} % |",
            load * 100.,
            alone.p50,
            alone.p99,
            beside.p50,
            beside.p99,
            beside.p99 / alone.p99,
            used * 100.
        );
    }
}

fn joining() {
    println!("\n| | its share after | its part | all answered after |\n|---|---|---|---|");
    for (policy, name) in POLICIES {
        let joined = joins(policy);
        let share = joined.share.map_or("never".to_owned(), |ms| format!("{ms:.1} ms"));
        println!("| {name} | {share} | {:.0} % | {:.1} s |", joined.part * 100., joined.drained);
    }
}

fn overloading(full: Capacity) {
    println!("\n| pods | deadline | goodput | in time | at once | right |\n|---|---|---|---|---|---|");
    for (pods, seconds) in [(1, 5), (4, 1), (4, 5), (4, 20), (8, 5)] {
        let overload = overload(pods, Duration::from_secs(seconds), full, 120);
        let [goodput, in_time, at_once, right] =
            [overload.goodput, overload.in_time, overload.at_once, overload.right].map(|share| share * 100.);
        println!(
            "| {pods} | {seconds} s | {goodput:.0} % | {in_time:.1} % | {at_once:.0} % | {right:.1} % |"
        );
    }
}
