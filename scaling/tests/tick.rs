//! What a look at all services costs the leader: its own time, whatever else the machine does.

mod common;
mod on_cpu;

use std::time::Duration;

use common::{SETTINGS, World};
use kembed_scaling::{Load, Observation, Pods, Scaler, Settings, Speed};
use on_cpu::on_cpu;

const SERVICES: usize = 5000;
const ACTIVE: usize = 50;

/// So many are measured together, for the time on a CPU is told to a few milliseconds.
const TICKS: u32 = 100;
const TUNINGS: u32 = 5;

/// In a program that is not optimised for release: several times what it takes.
const LIMIT: Duration = Duration::from_millis(50);

#[test]
fn a_look_at_five_thousand_services_is_short() {
    let mut worlds: Vec<World> = (0..ACTIVE).map(|_| World::new(SETTINGS, 3, 20.)).collect();
    for (place, world) in worlds.iter_mut().enumerate() {
        for second in 0..3700 {
            world.pass(world_load(place, second));
        }
    }
    let bytes = worlds.iter().map(|world| world.scaler.bytes()).max();
    assert!(bytes.is_some_and(|bytes| bytes < 60_000), "{bytes:?} of history");
    let mut asleep = vec![Scaler::new(SETTINGS); SERVICES - ACTIVE];
    let ticks = (0..TICKS).map(|second| {
        let looks: Vec<_> = worlds.iter_mut().map(|world| world.look(200., 1.)).collect();
        let quiet = quiet(second.into());
        let began = on_cpu();
        for (world, look) in worlds.iter_mut().zip(&looks) {
            world.scaler.decide(look);
        }
        for scaler in &mut asleep {
            assert_eq!(scaler.decide(&quiet).replicas, 0);
        }
        on_cpu() - began
    });
    let tick = ticks.sum::<Duration>() / TICKS;
    println!(
        "{SERVICES} services, {ACTIVE} active: {tick:?} a look, {bytes:?} bytes of history for an active one"
    );
    assert!(tick < LIMIT, "{tick:?}");
    assert!(asleep.iter().all(|scaler| scaler.bytes() == 0));
}

/// One tuning of a service with an hour of history, by what a leader may spend on it.
#[test]
fn a_tuning_is_short() {
    let mut world = World::new(Settings { tunes: true, ..SETTINGS }, 3, 20.);
    for second in 0..3600 {
        world.pass(world_load(0, second));
    }
    let took = (0..TUNINGS).map(|_| {
        let began = on_cpu();
        world.scaler.tune(9 * 3600);
        on_cpu() - began
    });
    let took = took.sum::<Duration>() / TUNINGS;
    println!("nine lives of an hour: {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

fn world_load(place: usize, second: usize) -> f64 {
    200. + 150. * (second as f64 / 100. + place as f64).sin()
}

fn quiet(second: u64) -> Observation {
    let over = Duration::from_secs(1);
    let load = Some(Load { over, ..Load::default() });
    let speed = Speed { rate: Some(1000.), start: Some(over), floor: Some(over) };
    Observation { now: Duration::from_secs(second), load, pods: Pods::default(), speed }
}
