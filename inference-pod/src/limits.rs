//! The bounds of everything that a client can make grow.

use std::time::Duration;

use kembed_queue::{Bounds, Budget};

/// What one pod takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that are being read, tokenised, run or answered.
    pub requests: usize,
    /// Bytes that requests in hand and their answers take, roughly.
    pub bytes: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Inputs of one request, as OpenAI has it.
    pub inputs: usize,
    /// What waits for the network.
    pub queue: Bounds,
    /// What the network is given at once.
    pub batch: Budget,
    /// From the first byte of a request to the last of its answer.
    pub timeout: Duration,
    /// Threads that run the network.
    pub threads: usize,
    /// Threads that tokenise.
    pub tokenisers: usize,
}

impl Limits {
    /// Tokens of a lane that a gateway may send at once: four batches for each thread. With fewer there are fewer texts of
    /// the same length to batch, and a thread may be idle while word goes to the gateway and back
    /// (docs/benchmarks/balancing.md). More waits better where it can go to any pod.
    pub fn credit(&self) -> u64 {
        4 * self.batch.tokens * self.threads as u64
    }

    /// The bounds of a pod with so many threads to compute on.
    pub fn new(threads: usize) -> Self {
        Self {
            requests: 1024,
            // Nine of the largest requests for vectors of 384 numbers: 2 * 4 MiB, and 2048 * 384 * 16 bytes.
            bytes: 192 << 20,
            body: 4 << 20,
            inputs: 2048,
            // A request of the most and longest inputs fits: 2048 * 512.
            queue: Bounds { tokens: 1 << 20, items: 8192 },
            // A core is as fast at 256 tokens as it gets, be it 32 rows of 8 or one of 256, and slower in much larger
            // batches (docs/benchmarks/cpu.md). Small ones also let the next input begin sooner.
            batch: Budget { tokens: 256, rows: 64 },
            timeout: Duration::from_secs(30),
            threads,
            tokenisers: threads,
        }
    }
}
