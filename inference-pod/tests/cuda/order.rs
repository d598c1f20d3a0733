//! Whatever the delays: results belong to their batches, no slot is used too early, nothing is lost, and nothing waits for
//! the device that need not.

use std::thread;

use proptest::prelude::*;

use super::{Batch, FLOATS, WORDS, fake::Fake, run_all, until, workers};

fn batch() -> impl Strategy<Value = Batch> {
    // Most are small, so that they overtake each other wherever they can.
    let words = prop_oneof![4 => 1..40usize, 1 => 1..=WORDS];
    let floats = prop_oneof![4 => 1..40usize, 1 => 1..=FLOATS];
    (words, floats, any::<u32>()).prop_map(|(words, floats, first)| {
        let words = (0..words as u32).map(|i| first.wrapping_add(i.wrapping_mul(2_654_435_761))).collect();
        Batch { words, floats }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn results_belong_to_their_batches(
        seed in any::<u64>(),
        delay_us in prop_oneof![Just(0), 1..400u64],
        slots in 1..5usize,
        batches in proptest::collection::vec(batch(), 1..40),
    ) {
        let fake = Fake::begin(seed, delay_us);
        let mut workers = workers(&fake, slots);
        let before = fake.synchronising();
        let ran = run_all(&mut workers, &batches);
        prop_assert_eq!(fake.synchronising(), before, "nothing waits but for events");
        prop_assert_eq!(fake.waits(), batches.len() as u64, "once for each batch");
        prop_assert_eq!(fake.kernels(), batches.len() as u64, "each batch ran once");
        for (batch, result) in batches.iter().zip(ran) {
            prop_assert_eq!(result, Ok(batch.expected()));
        }
        drop(workers);
        prop_assert_eq!((fake.violations(), fake.alive()), (0, 0), "nothing was touched too early, nothing is left");
    }
}

#[test]
fn the_next_batch_is_copied_while_one_is_computed() {
    let fake = Fake::begin(7, 0);
    let mut workers = workers(&fake, 3);
    fake.hang(true);
    let batches = [Batch::of(&[1]), Batch::of(&[2, 3]), Batch::of(&[4])];
    thread::scope(|scope| {
        let running = scope.spawn(|| run_all(&mut workers, &batches));
        until("all batches are copied in", || fake.copies_in() == 3);
        assert_eq!(fake.kernels(), 0, "the first still computes");
        fake.hang(false);
        let ran = running.join().expect("it does not panic");
        let expected: Vec<_> = batches.iter().map(|batch| Ok(batch.expected())).collect();
        assert_eq!(ran, expected);
    });
    assert_eq!(fake.violations(), 0);
}

#[test]
fn a_batch_that_is_too_large_for_its_slot_is_refused_and_the_next_one_runs() {
    let fake = Fake::begin(3, 0);
    let mut workers = workers(&fake, 1);
    for batch in
        [Batch { words: vec![1; WORDS + 1], floats: 1 }, Batch { words: vec![1], floats: FLOATS + 1 }]
    {
        let refused = batch.run(&mut workers[0]).expect_err("it is too large");
        assert!(!refused.is_loss() && refused.to_string().contains("larger than its slot"), "{refused}");
    }
    let whole = Batch { words: vec![5; WORDS], floats: FLOATS };
    assert_eq!(whole.run(&mut workers[0]), Ok(whole.expected()));
}

#[test]
fn devices_work_side_by_side() {
    use inference_pod::cuda::{driver::Streams, pipeline::start};
    let fake = Fake::begin(5, 100);
    let mut all = Vec::new();
    for ordinal in 0..fake.driver().count().expect("it says") {
        let device = fake.driver().open(ordinal).expect("there is such a device");
        let streams = Streams::new(&device).expect("it gives streams");
        let network = fake.network(&streams);
        all.extend(start(&device, streams, network, super::settings(2)).expect("it starts"));
    }
    let batches: Vec<_> = (0..64).map(|i| Batch::of(&[i, i + 1])).collect();
    let expected: Vec<_> = batches.iter().map(|batch| Ok(batch.expected())).collect();
    assert_eq!(run_all(&mut all, &batches), expected);
    drop(all);
    assert_eq!((fake.violations(), fake.alive()), (0, 0));
}
