//! How long a device takes, by its own clock, which here has nothing to do with the one on the wall.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use inference_pod::{backend::Took, cuda::pipeline::SAMPLED};

use super::{Batch, fake::Fake, until, workers};

/// Batches that are run, of which four are timed.
const BATCHES: u64 = 4 * SAMPLED;

/// What the device took for batches that are run by several workers as fast as they can.
fn saturated(fake: &Fake, slots: usize) -> Vec<Took> {
    let mut workers = workers(fake, slots);
    let (left, took) = (Mutex::new(BATCHES), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in &mut workers {
            let (left, took) = (&left, &took);
            scope.spawn(move || {
                let one_more = || {
                    let mut left = left.lock().expect("nobody panicked");
                    left.checked_sub(1).map(|less| *left = less).is_some()
                };
                while one_more() {
                    let batch = Batch::of(&[1, 2, 3]);
                    assert_eq!(batch.run(worker), Ok(batch.expected()));
                    took.lock().expect("nobody panicked").extend(worker.took());
                    assert_eq!(worker.took(), None, "it is told once");
                }
            });
        }
    });
    took.into_inner().expect("nobody panicked")
}

fn is(time: Duration, milliseconds: f64) -> bool {
    // They come as 32-bit floats, of clocks that have run for a while.
    (time.as_secs_f64() * 1000. - milliseconds).abs() <= 1e-3 * milliseconds.max(1.)
}

#[test]
fn times_are_the_devices_own() {
    let fake = Fake::begin(31, 300);
    // An hour: this test would notice if it were the clock on the wall.
    fake.takes(2., 3_600_000.);
    let start = Instant::now();
    let took = saturated(&fake, 3);
    assert!(start.elapsed() < Duration::from_secs(3600));
    assert_eq!(took.len(), 4, "one of sixteen is timed");
    for took in took {
        let Took { device, copy_in, compute, copy_out, .. } = took;
        assert!(device == 0 && is(copy_in, 2.) && is(copy_out, 2.) && is(compute, 3_600_000.), "{took:?}");
    }
    assert_eq!((fake.violations(), fake.alive()), (0, 0), "nothing is left of what measured it");
}

#[test]
fn a_device_whose_copies_are_quick_is_never_idle() {
    let fake = Fake::begin(32, 100);
    fake.takes(1., 50.);
    let idle: Vec<_> = saturated(&fake, 3).into_iter().filter_map(|took| took.idle).collect();
    assert!(idle.iter().all(|&idle| is(idle, 0.)), "{idle:?}");
}

#[test]
fn a_device_that_waits_for_copies_is_idle_meanwhile() {
    let fake = Fake::begin(33, 0);
    fake.takes(50., 1.);
    let mut workers = workers(&fake, 2);
    for _ in 0..SAMPLED - 1 {
        let batch = Batch::of(&[1]);
        assert_eq!(batch.run(&mut workers[0]), Ok(batch.expected()));
    }
    // The next one is still there when the one that is timed comes.
    fake.hang(true);
    let (first, second) = workers.split_at_mut(1);
    let batch = Batch::of(&[7]);
    let idle = thread::scope(|scope| {
        let before = fake.copies_in();
        let first = scope.spawn(|| batch.run(&mut first[0]));
        until("the first is copied in", || fake.copies_in() == before + 1);
        let second = scope.spawn(|| batch.run(&mut second[0]).map(|_| second[0].took()));
        until("the second is copied in", || fake.copies_in() == before + 2);
        fake.hang(false);
        assert!(first.join().expect("it does not panic").is_ok());
        second.join().expect("it does not panic").expect("it runs").and_then(|took| took.idle)
    });
    // While the one before was computed for a millisecond, the copy went on.
    assert!(idle.is_some_and(|idle| is(idle, 49.)), "{idle:?}");
}

#[test]
fn a_device_that_nobody_asked_for_anything_is_not_called_idle() {
    let fake = Fake::begin(34, 0);
    let mut workers = workers(&fake, 1);
    let took: Vec<_> = (0..BATCHES)
        .filter_map(|_| {
            Batch::of(&[1]).run(&mut workers[0]).expect("it runs");
            workers[0].took()
        })
        .collect();
    assert_eq!(took.len(), 4);
    assert!(took.iter().all(|took| took.idle.is_none()), "{took:?}");
}
