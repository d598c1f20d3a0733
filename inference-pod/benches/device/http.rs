//! The same work asked of a pod over HTTP.

use std::{
    thread,
    time::{Duration, Instant},
};

use hyper::body::Bytes;

use super::{
    client::{percentile, sorted},
    closed,
    pod::Pod,
    process::cpu,
    texts::{Body, Dice},
};

/// Threads that ask: a single one would be what limits.
const THREADS: usize = 4;
/// Requests of each at a time.
const CONNECTIONS: usize = 24;
/// Texts of a request, and tokens of all that are asked for at a time: several batches, and less than a pod queues (8192 texts,
/// a million tokens).
const INPUTS: usize = 64;
const TOKENS: usize = 600_000;

/// What a pod did.
pub struct Served {
    pub tokens_per_second: f64,
    /// Cores that the pod kept busy, and those that asked.
    pub pod_cores: f64,
    pub client_cores: f64,
}

impl Served {
    /// What kept it from more, as far as that can be seen from outside.
    pub fn limit(&self, device: f64, cores: usize) -> &'static str {
        if self.tokens_per_second > 0.9 * device {
            "the device"
        } else if self.client_cores > 0.85 * THREADS as f64 {
            "who asks"
        } else if self.pod_cores + self.client_cores > 0.85 * cores as f64 {
            "the cores"
        } else {
            "neither device nor cores: waiting in between"
        }
    }
}

/// Requests for the vectors, in base64, of texts of so many tokens each, of which two are put around them. There are twice as
/// many as connections, so that no two texts in hand are alike: a pod would compute them once.
fn bodies(seed: u64, connections: usize, inputs: usize, length: usize) -> Vec<Bytes> {
    let mut dice = Dice::new(seed);
    let words = length.saturating_sub(2).max(1);
    let body = |_| {
        let mut json = Body::new(&mut dice, inputs, words, words).json;
        json.truncate(json.len() - 1);
        Bytes::from(json + r#","encoding_format":"base64"}"#)
    };
    (0..2 * connections).map(body).collect()
}

/// Saturates the pod with texts of so many tokens. `None` if it refused one, which was told by then.
pub fn saturate(pod: &Pod, length: usize, time: Duration) -> Option<Served> {
    let inputs = (TOKENS / (THREADS * CONNECTIONS * length)).clamp(1, INPUTS);
    let bodies: Vec<_> = (1..=THREADS as u64).map(|seed| bodies(seed, CONNECTIONS, inputs, length)).collect();
    let (pod_before, own_before, began) = (pod.cpu(), cpu("self"), Instant::now());
    let warm_up = time.div_f64(4.);
    let rates: Option<f64> = thread::scope(|scope| {
        let ask = |bodies: &[Bytes]| closed::load(pod.address, bodies, CONNECTIONS, warm_up, time).rate;
        let asking: Vec<_> = bodies.iter().map(|bodies| scope.spawn(move || ask(bodies))).collect();
        asking.into_iter().map(|thread| thread.join().ok()).sum()
    });
    let all = began.elapsed().as_secs_f64();
    Some(Served {
        tokens_per_second: rates? * (inputs * length) as f64,
        pod_cores: (pod.cpu() - pod_before) / all,
        client_cores: (cpu("self") - own_before) / all,
    })
}

/// Seconds of an answer, the median and the 95th percentile, to 100 who each ask for the vector of one short text. `None` if one
/// was refused.
pub fn latency(pod: &Pod, time: Duration) -> Option<(f64, f64)> {
    let bodies = bodies(1, 100, 1, 16);
    let ask = || closed::load(pod.address, &bodies, 100, time.div_f64(4.), time).latencies;
    let latencies = sorted(thread::scope(|scope| scope.spawn(ask).join()).ok()?);
    Some((percentile(&latencies, 0.5), percentile(&latencies, 0.95)))
}
