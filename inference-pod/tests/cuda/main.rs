//! The pipeline of a GPU, on a stand-in for its driver that leaves nothing to chance.

mod attention;
mod bench;
mod fake;
mod faults;
mod golden;
mod network;
mod order;
mod sensors;
mod stand_in;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod times;

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fake::{Fake, Twice, twice};
use inference_pod::cuda::{
    fault::Fault,
    pipeline::{Settings, Size, Worker, start},
};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Words of the largest batch.
const WORDS: usize = 3000;

/// Numbers that it gives.
const FLOATS: usize = 2000;

fn settings(slots: usize) -> Settings {
    let size = Size { input_bytes: WORDS * size_of::<u32>(), output_floats: FLOATS };
    Settings { slots, size, patience: PATIENCE }
}

fn workers(fake: &Fake, slots: usize) -> Vec<Worker<Twice>> {
    let (device, streams) = fake.open();
    let network = fake.network(&streams);
    start(&device, streams, network, settings(slots)).expect("it starts")
}

/// A batch of a test: what goes in, and how many numbers come out.
#[derive(Clone, Debug)]
struct Batch {
    words: Vec<u32>,
    floats: usize,
}

impl Batch {
    fn of(words: &[u32]) -> Self {
        Self { words: words.to_vec(), floats: words.len() }
    }

    fn run(&self, worker: &mut Worker<Twice>) -> Result<Vec<f32>, Fault> {
        let size = Size { input_bytes: self.words.len() * size_of::<u32>(), output_floats: self.floats };
        let fill = |bytes: &mut [u8]| {
            for (place, word) in bytes.chunks_exact_mut(size_of::<u32>()).zip(&self.words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        };
        worker.run((), size, fill, <[f32]>::to_vec)
    }

    fn expected(&self) -> Vec<f32> {
        twice(&self.words, self.floats)
    }
}

/// Runs batches, each by the first worker that is free, as the pod does. What became of each, in their order.
fn run_all(workers: &mut [Worker<Twice>], batches: &[Batch]) -> Vec<Result<Vec<f32>, Fault>> {
    let next = Mutex::new(batches.iter().enumerate());
    let ran = Mutex::new(vec![None; batches.len()]);
    thread::scope(|scope| {
        for worker in workers {
            let (next, ran) = (&next, &ran);
            scope.spawn(move || {
                let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some((i, batch)) = take() {
                    let result = batch.run(worker);
                    ran.lock().expect("nobody panicked")[i] = Some(result);
                }
            });
        }
    });
    let ran = ran.into_inner().expect("nobody panicked");
    ran.into_iter().map(|result| result.expect("each batch was run")).collect()
}

/// Waits for what must come about.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}
