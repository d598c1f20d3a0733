//! The same work asked of a pod over HTTP.

use std::{thread, time::Duration};

use hyper::body::Bytes;

use super::{
    client::{percentile, sorted},
    closed,
    pod::Pod,
    process::cpu,
    texts::{Body, Dice},
};

/// Texts of a request, and requests at a time, that saturate a device.
const INPUTS: usize = 64;
const CONNECTIONS: usize = 256;
/// Threads that ask: a single one would be what limits.
const THREADS: usize = 4;

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

/// Texts of so many tokens each, of which two are put around them; vectors in base64.
fn bodies(inputs: usize, length: usize) -> Vec<Bytes> {
    let mut dice = Dice::new(1);
    let words = length.saturating_sub(2).max(1);
    // More than are in hand at once, so that no two of those are alike.
    let count = (2 * CONNECTIONS).max(64);
    let body = |_| {
        let mut json = Body::new(&mut dice, inputs, words, words).json;
        json.truncate(json.len() - 1);
        Bytes::from(json + r#","encoding_format":"base64"}"#)
    };
    (0..count).map(body).collect()
}

/// Saturates the pod with texts of so many tokens.
pub fn saturate(pod: &Pod, length: usize, time: Duration) -> Served {
    let bodies = bodies(INPUTS, length);
    let (pod_before, own_before) = (pod.cpu(), cpu("self"));
    let (warm_up, all) = (time.div_f64(4.), time.mul_f64(1.25));
    let requests: usize = thread::scope(|scope| {
        let ask = || closed::load(pod.address, &bodies, CONNECTIONS / THREADS, warm_up, time).latencies.len();
        let asking: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    Served {
        tokens_per_second: (requests * INPUTS * length) as f64 / time.as_secs_f64(),
        pod_cores: (pod.cpu() - pod_before) / all.as_secs_f64(),
        client_cores: (cpu("self") - own_before) / all.as_secs_f64(),
    }
}

/// Seconds of an answer, the median and the 95th percentile, to 100 who each ask for the vector of one short text.
pub fn latency(pod: &Pod, time: Duration) -> (f64, f64) {
    let latencies = sorted(closed::load(pod.address, &bodies(1, 16), 100, time.div_f64(4.), time).latencies);
    (percentile(&latencies, 0.5), percentile(&latencies, 0.95))
}
