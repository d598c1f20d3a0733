//! What many services cost.

use std::time::{Duration, Instant};

use kembed_scaling::{Load, Objective, Observation, Pods, Scaler, Settings, Speed};

use crate::goals::Goal;

/// Services, and those of them that have requests.
const SERVICES: usize = 5000;
const ACTIVE: usize = 50;

/// Looks before time is taken, and while it is.
const WARM: u64 = 600;
const TIMED: u64 = 60;

/// Looks at 5,000 services, of which 50 have requests, once a second, all on one core.
pub fn goals() -> Vec<Goal> {
    let settings = Settings {
        min: 0,
        max: 20,
        queue_depth: 16,
        objective: Some(Objective { share: 0.95, target: Duration::from_secs(1) }),
        zero_after: Duration::from_secs(300),
        tunes: true,
    };
    let mut services: Vec<(Scaler, u32)> = (0..SERVICES).map(|_| (Scaler::new(settings), 1)).collect();
    (0..WARM).for_each(|second| tick(&mut services, second));
    // The median, for a machine that does something else now and then.
    let mut ticks: Vec<f64> = (WARM..WARM + TIMED).map(|second| timed(&mut services, second)).collect();
    ticks.sort_by(f64::total_cmp);
    let took = ticks[ticks.len() / 2];
    let bytes = |(scaler, _): &(Scaler, u32)| size_of::<Scaler>() + scaler.bytes();
    let megabytes = services.iter().map(bytes).sum::<usize>() >> 20;
    let goal = |what: &str, wanted: &str, reached: String, is_met| Goal {
        what: format!("{what} for 5,000 services, 50 of them active"),
        wanted: wanted.into(),
        reached,
        is_met,
    };
    vec![
        goal("decisions of a tick", "< 50 ms", format!("{took:.1} ms"), took < 50.),
        goal("memory of decisions", "< 200 MB", format!("{megabytes} MB"), megabytes < 200),
    ]
}

/// Milliseconds of a tick.
fn timed(services: &mut [(Scaler, u32)], second: u64) -> f64 {
    let began = Instant::now();
    tick(services, second);
    began.elapsed().as_secs_f64() * 1e3
}

fn tick(services: &mut [(Scaler, u32)], second: u64) {
    for (index, (scaler, pods)) in services.iter_mut().enumerate() {
        // Each its own wave, so that counts change.
        let rate = match index < ACTIVE {
            true => 50_000. * (1.5 + ((second + index as u64 * 13) as f64 / 60.).sin()),
            false => 0.,
        };
        let load = Load {
            over: Duration::from_secs(1),
            arrived: rate / 500.,
            arrived_tokens: rate,
            arrived_squares: rate * 750.,
            answered_tokens: rate,
            in_hand: rate / 20_000.,
            ..Load::default()
        };
        let seen = Observation {
            now: Duration::from_secs(second),
            load: Some(load),
            pods: Pods { wanted: *pods, ready: *pods, ..Pods::default() },
            speed: Speed {
                rate: Some(47_000.),
                start: Some(Duration::from_secs(20)),
                floor: Some(Duration::from_millis(3)),
            },
        };
        *pods = scaler.decide(&seen).replicas;
    }
}
