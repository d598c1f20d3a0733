//! 5,000 services, most of which nobody asks for.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::json;

use crate::{
    Bench,
    fleet::Fleet,
    latency::{PAUSE, Ways, aims},
    loads::{Aim, closed},
    quick_pod,
    report::{Row, median},
    world::World,
};

/// Services that there are, and those of them that are asked.
const SERVICES: usize = 5000;
const ACTIVE: usize = 50;

/// What may be called the same: a tenth more, and what one round differs from another by.
const SAME: (f64, f64) = (1.1, 0.03);

fn name(i: usize) -> String {
    format!("service-{i}")
}

/// What a request takes with so many services, beside one; also while they change; and what memory that takes.
pub fn many(bench: &Bench) -> Vec<Row> {
    let (port, one, world) = (quick_pod::start(), Ways::start(bench), World::start());
    for i in 0..SERVICES {
        world.put_service(&name(i), u32::from(i < ACTIVE));
    }
    for i in 0..ACTIVE {
        put_pod(&world, i, port);
    }
    [&one.alone, &one.three].map(|fleet| row(bench, &world, port, fleet)).into()
}

fn put_pod(world: &World, i: usize, port: u16) {
    let address = SocketAddr::from(([127, 0, 1, i as u8 + 1], port));
    world.put_pod(&name(i), &format!("pod-{i}"), address);
}

fn row(bench: &Bench, world: &World, port: u16, one: &Fleet) -> Row {
    let count = one.gateways.len();
    let fleet = Fleet::start(&bench.program, world, count, &[]);
    fleet.await_known("services", SERVICES);
    fleet.await_known("pods", ACTIVE);
    let of_many = |i: usize| Aim { address: fleet.gateways[i % count].address, service: name(i % ACTIVE) };
    let of_many: Vec<_> = (0..100).map(of_many).collect();
    let of_one: Vec<_> = (0..100).flat_map(|i| aims(one.gateways[i % count].address, 1)).collect();
    let measure = |aims: &[Aim]| {
        let measured = closed(aims, Some(PAUSE), bench.time);
        [measured.ms(0.5), measured.ms(0.99)]
    };
    // The pods' probes are over then, and connections are open.
    measure(&of_many);
    let most = || fleet.gateways.iter().map(|gateway| gateway.memory().1).fold(0., f64::max);
    let still = most();
    let rounds: Vec<[[f64; 2]; 3]> = (0..bench.rounds)
        .map(|_| {
            let changed = || changing(world, port, bench.changes, || measure(&of_many));
            [measure(&of_one), measure(&of_many), changed()]
        })
        .collect();
    let took = |way: usize, part: usize| median(rounds.iter().map(|round| round[way][part]));
    let most = most();
    let is_same = |way| took(way, 0) <= took(0, 0) * SAME.0 + SAME.1;
    let told = [0, 1, 2].map(|way| format!("{:.3} / {:.3} ms", took(way, 0), took(way, 1)));
    Row {
        what: "5,000 services known, 50 active".to_owned(),
        with: count.to_string(),
        figure: format!(
            "{most:.0} MB at most ({still:.0} before the first change); p50 / p99 {}, with 1 service {}, while {} \
             a second change {}",
            told[1], told[0], bench.changes, told[2]
        ),
        goal: "150 MB, same latency",
        is_met: Some(most < 150. && is_same(1) && is_same(2)),
        rounds: json!(rounds),
    }
}

/// Does something while so many objects a second change: by turns a service that nobody asks for, which gets a replica or
/// loses it, and a pod that is asked.
fn changing<R>(world: &World, port: u16, changes: u32, work: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let pause = Duration::from_secs(1) / changes.max(1);
            for i in (0..).take_while(|_| changes > 0 && !is_over.load(Ordering::Relaxed)) {
                let turn = i / 2;
                if i % 2 == 0 {
                    let (round, which) = (turn / (SERVICES - ACTIVE), turn % (SERVICES - ACTIVE));
                    world.put_service(&name(ACTIVE + which), u32::from(round % 2 == 0));
                } else {
                    put_pod(world, turn % ACTIVE, port);
                }
                std::thread::sleep(pause);
            }
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        result
    })
}
