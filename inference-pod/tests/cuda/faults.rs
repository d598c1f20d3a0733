//! Whatever fails: no wrong answer, nothing that hangs, and after a loss nothing at all.

use std::{
    thread,
    time::{Duration, Instant},
};

use inference_pod::cuda::{
    driver::Regions,
    fault::Fault,
    pipeline::{Compute, PipelineError, start},
};
use proptest::prelude::*;

use super::{Batch, PATIENCE, fake::Fake, run_all, settings, until, workers};

/// All that is called for a batch, what runs on the device included.
const CALLS: [&str; 9] = [
    "cuMemcpyHtoDAsync_v2",
    "cuEventRecord",
    "cuStreamWaitEvent",
    "launch",
    "kernel",
    "cuMemcpyDtoHAsync_v2",
    "cuEventSynchronize",
    // Of those whose times are taken.
    "cuEventCreate",
    "cuEventElapsedTime",
];

const ILLEGAL_ADDRESS: i32 = 700;
const OUT_OF_MEMORY: i32 = 2;
/// What no driver has yet, and a newer one may have.
const UNHEARD_OF: i32 = 99_999;

fn batches(count: u32) -> Vec<Batch> {
    (0..count).map(|i| Batch::of(&[3 * i, 3 * i + 1, 3 * i + 2])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn after_a_fault_no_wrong_answer_is_given(
        seed in any::<u64>(),
        delay_us in prop_oneof![Just(0), 1..300u64],
        slots in 1..4usize,
        call in proptest::sample::select(&CALLS[..]),
        after in 0..12usize,
        code in proptest::sample::select(&[1, OUT_OF_MEMORY, ILLEGAL_ADDRESS, 719, 999, UNHEARD_OF][..]),
        sticky in any::<bool>(),
    ) {
        let fake = Fake::begin(seed, delay_us);
        let mut workers = workers(&fake, slots);
        // What a kernel does wrong always breaks the device.
        fake.fail(call, after, code, sticky || call == "kernel");
        let batches = batches(24);
        let ran = run_all(&mut workers, &batches);
        // It may be a call that comes more rarely.
        let happened = fake.fail_no_more() == 0;
        let mut faults = Vec::new();
        for (batch, result) in batches.iter().zip(ran) {
            match result {
                Ok(output) => prop_assert_eq!(output, batch.expected()),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.iter().any(Fault::is_loss) {
            let more = run_all(&mut workers, &batches);
            prop_assert!(more.iter().all(|ran| ran.as_ref().is_err_and(Fault::is_loss)), "nothing runs after a loss");
        } else {
            prop_assert!(!(happened && sticky), "a device that is broken is lost");
            prop_assert!(run_all(&mut workers, &batches).iter().all(Result::is_ok), "a fault passes");
        }
        drop(workers);
        prop_assert_eq!(fake.violations(), 0);
    }
}

#[test]
fn a_batch_that_finds_no_memory_is_tried_again_when_nothing_else_runs() {
    let fake = Fake::begin(1, 100);
    let mut workers = workers(&fake, 3);
    fake.fail("launch", 5, OUT_OF_MEMORY, false);
    let batches = batches(12);
    for (batch, ran) in batches.iter().zip(run_all(&mut workers, &batches)) {
        assert_eq!(ran, Ok(batch.expected()));
    }
    drop(workers);
    assert_eq!((fake.violations(), fake.alive()), (0, 0));
}

#[test]
fn a_batch_that_never_finds_memory_says_so_and_leaves_the_others_alone() {
    let fake = Fake::begin(2, 100);
    let mut workers = workers(&fake, 2);
    fake.largest(2 * size_of::<u32>());
    let batches = [Batch::of(&[1, 2]), Batch::of(&[3, 4, 5]), Batch::of(&[6]), Batch::of(&[7, 8, 9])];
    let ran = run_all(&mut workers, &batches);
    for (batch, ran) in batches.iter().zip(ran) {
        match batch.words.len() {
            3 => assert!(matches!(ran, Err(Fault::OutOfMemory(_))), "{ran:?}"),
            _ => assert_eq!(ran, Ok(batch.expected())),
        }
    }
    drop(workers);
    assert_eq!((fake.violations(), fake.alive()), (0, 0));
}

#[test]
fn a_device_that_hangs_is_lost_and_nobody_waits_for_it() {
    let fake = Fake::begin(4, 0);
    let (device, streams) = fake.open();
    let network = fake.network(&streams);
    let mut workers = start(&device, streams, network, settings(2)).expect("it starts");
    // It had more while it was new.
    workers[0].set_patience(Duration::from_millis(200));
    fake.hang(true);
    // The other worker has an idle slot, which must not be given back: a device that hangs would not take it.
    let ran = run_all(&mut workers[..1], &batches(4));
    assert!(ran.iter().all(|ran| ran.as_ref().is_err_and(Fault::is_loss)), "{ran:?}");
    let alive = fake.alive();
    assert!(device.lost().is_some_and(|why| why.contains("did not finish")), "{:?}", device.lost());
    let start = Instant::now();
    drop(workers);
    assert!(start.elapsed() < PATIENCE, "the threads are not waited for");
    // What it still does, should it come to itself, is done in memory that nobody has freed.
    fake.hang(false);
    assert_eq!((fake.violations(), fake.alive()), (0, alive));
}

#[test]
fn what_comes_after_the_loss_is_not_looked_at() {
    let fake = Fake::begin(4, 0);
    let (device, streams) = fake.open();
    let network = fake.network(&streams);
    let mut workers = start(&device, streams, network, settings(2)).expect("it starts");
    fake.hang(true);
    let ran = thread::scope(|scope| {
        let running = scope.spawn(|| run_all(&mut workers, &batches(2)));
        until("the first batch is waited for", || fake.waits() == 1);
        device.lose("as a test has it");
        fake.hang(false);
        running.join().expect("it does not panic")
    });
    assert_eq!(ran, vec![Err(Fault::Lost("as a test has it".into())); 2]);
    assert_eq!(fake.violations(), 0);
}

#[test]
fn a_device_without_room_does_not_start_and_keeps_nothing() {
    for (call, after) in [("cuMemAlloc_v2", 3), ("cuMemHostAlloc", 1), ("cuEventCreate", 4)] {
        let fake = Fake::begin(1, 0);
        let (device, streams) = fake.open();
        let network = fake.network(&streams);
        fake.fail(call, after, OUT_OF_MEMORY, false);
        let failed = start(&device, streams, network, settings(2)).err();
        assert!(matches!(failed, Some(PipelineError::Device(Fault::OutOfMemory(_)))), "{call}: {failed:?}");
        drop(device);
        assert_eq!(fake.alive(), 0, "{call}");
    }
}

#[test]
fn a_broken_device_is_not_taken_into_use() {
    let fake = Fake::begin(1, 0);
    fake.fail("cuCtxSetFlags", 0, 999, true);
    let error = fake.driver().open(0).expect_err("it is broken");
    assert_eq!(error.to_string(), "cuCtxSetFlags failed with CUDA_ERROR_UNKNOWN (999)");
}

/// No driver of today has such an error, and none that we were built with.
#[test]
fn an_error_that_nobody_knows_is_told_by_its_number_and_is_a_loss() {
    let fake = Fake::begin(1, 0);
    let mut workers = workers(&fake, 2);
    fake.fail("cuEventSynchronize", 1, UNHEARD_OF, false);
    let batches = batches(3);
    assert_eq!(batches[0].run(&mut workers[0]), Ok(batches[0].expected()));
    let why = "cuEventSynchronize failed with unknown CUDA error 99999";
    assert_eq!(batches[1].run(&mut workers[0]), Err(Fault::Lost(why.into())));
    assert_eq!(
        batches[2].run(&mut workers[1]),
        Err(Fault::Lost(why.into())),
        "the device is not trusted again"
    );
    drop(workers);
    fake.fail("cuCtxSetFlags", 0, UNHEARD_OF, false);
    let error = fake.driver().open(0).expect_err("it fails");
    assert_eq!(
        (error.code(), error.to_string()),
        (99_999, "cuCtxSetFlags failed with unknown CUDA error 99999".into())
    );
}

/// A network whose code is wrong.
struct Panics;

impl Compute for Panics {
    type Batch = ();

    fn enqueue(&mut self, (): &(), _: &Regions<'_>) -> Result<(), Fault> {
        panic!("a fault of this program, which a test wants to see")
    }
}

#[test]
fn a_panic_is_a_loss_and_nobody_waits_for_what_never_comes() {
    let fake = Fake::begin(1, 0);
    let (device, streams) = fake.open();
    let mut workers = start(&device, streams, Panics, settings(2)).expect("it starts");
    for worker in &mut workers {
        let size = settings(1).size;
        let ran = worker.run((), size, |_| (), <[f32]>::to_vec);
        assert!(ran.is_err_and(|fault| fault.is_loss()));
    }
    drop(workers);
    assert_eq!(fake.violations(), 0);
}
