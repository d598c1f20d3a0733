//! What is asked of the pods, and how it is measured.

use std::time::Duration;

use hyper::body::Bytes;
use inference_pod::tokenise::Tokeniser;

use super::{
    ceiling::{Batch, Before, Ceiling, Speed},
    client::percentile,
    closed, open,
    pod::Pod,
    process::cpu,
    report::{AfterPause, Arrivals, Open, Round, Row, Served},
    texts::{Body, Dice},
    window::warm_up,
};

/// Lengths of a load at which the ceiling is measured.
const LENGTHS: usize = 5;

/// What is asked of a pod.
pub struct Load {
    pub name: &'static str,
    connections: usize,
    /// Texts of a request.
    inputs: usize,
    /// Words of a text, at least and at most.
    words: (usize, usize),
    /// How much longer than others it is measured: few requests of many texts end in a second.
    times: f64,
    /// Parts of the rate that the pod reached, at which requests then come by chance.
    arrivals: &'static [f64],
}

pub const LOADS: [Load; 4] = [
    Load {
        name: "100 connections, 12 words",
        connections: 100,
        inputs: 1,
        words: (12, 12),
        times: 1.,
        arrivals: &[0.5, 0.8],
    },
    Load {
        name: "1 connection, 12 words",
        connections: 1,
        inputs: 1,
        words: (12, 12),
        times: 1.,
        arrivals: &[],
    },
    Load {
        name: "20 connections, 8-200 words",
        connections: 20,
        inputs: 1,
        words: (8, 200),
        times: 1.,
        arrivals: &[],
    },
    Load {
        name: "4 connections, 32 texts of 8-200 words",
        connections: 4,
        inputs: 32,
        words: (8, 200),
        times: 4.,
        arrivals: &[],
    },
];

/// What measures.
pub struct Bench<'a> {
    pub ceiling: Ceiling,
    pub tokeniser: Tokeniser,
    /// In float32, and in int8.
    pub pods: &'a [Pod; 2],
    /// Of each measurement.
    pub time: Duration,
    pub rounds: usize,
}

impl Bench<'_> {
    pub fn measure(&mut self, load: &Load) -> Row {
        // More than are in hand at once, so that no two of those are alike.
        let mut dice = Dice::new(1);
        let bodies: Vec<_> = (0..(2048 / load.inputs).max(64))
            .map(|_| Body::new(&mut dice, load.inputs, load.words.0, load.words.1))
            .collect();
        let lengths = self.lengths(&bodies);
        let bodies: Vec<_> = bodies.into_iter().map(|body| Bytes::from(body.json)).collect();
        let rounds = if load.connections == 1 {
            let length = lengths[LENGTHS / 2];
            (0..self.rounds).map(|_| self.one_at_a_time(load, &bodies, length)).collect()
        } else {
            let batches = self.ceiling.best(&lengths, self.time);
            (0..self.rounds).map(|_| self.many(load, &bodies, &batches)).collect()
        };
        Row { name: load.name, rounds }
    }

    /// Tokens of as many texts each, from the shortest to the longest.
    fn lengths(&self, bodies: &[Body]) -> [usize; LENGTHS] {
        let texts = bodies.iter().flat_map(|body| &body.texts);
        let mut all: Vec<_> =
            texts.map(|text| self.tokeniser.ids("", text).expect("plain words").len()).collect();
        all.sort_unstable();
        std::array::from_fn(|i| all[(2 * i + 1) * all.len() / (2 * LENGTHS)])
    }

    fn many(&mut self, load: &Load, bodies: &[Bytes], batches: &[Batch]) -> Round {
        let bare = self.ceiling.of_mix(batches, self.time);
        let [float, int8] = self.pods.each_ref().map(|pod| self.serve(load, pod, bodies));
        let reached = [float.rows_per_second, int8.rows_per_second];
        let arrivals = load.arrivals.iter().map(|&part| {
            let open = |i: usize| self.open(&self.pods[i], bodies, part * reached[i]);
            Arrivals { part, float: open(0), int8: open(1) }
        });
        Round { bare, after_pause: None, arrivals: arrivals.collect(), float, int8 }
    }

    /// While a pod answers, a core is idle. A bare run after such a pause tells what that alone costs, and one after a busy pause
    /// what of that a pod could win that does not let the core go idle.
    fn one_at_a_time(&mut self, load: &Load, bodies: &[Bytes], length: usize) -> Round {
        let bare: Speed = self.ceiling.single(length, Before::Nothing, self.time);
        let [float, int8] = self.pods.each_ref().map(|pod| self.serve(load, pod, bodies));
        let pause = Duration::from_secs_f64((float.p50 - bare.run).max(0.));
        let mut after = |pause| self.ceiling.single(length, pause, self.time).run;
        let after_pause =
            Some(AfterPause { idle: after(Before::Idle(pause)), busy: after(Before::Busy(pause)) });
        Round { bare, after_pause, float, int8, arrivals: Vec::new() }
    }

    fn serve(&self, load: &Load, pod: &Pod, bodies: &[Bytes]) -> Served {
        let time = self.time.mul_f64(load.times);
        let (pod_before, own_before) = (pod.cpu(), cpu("self"));
        let measured = closed::load(pod.address, bodies, load.connections, warm_up(time), time);
        let all = (measured.answered * load.inputs) as f64;
        Served {
            rows_per_second: measured.rate * load.inputs as f64,
            p50: percentile(&measured.latencies, 0.5),
            p95: percentile(&measured.latencies, 0.95),
            health: percentile(&measured.health, 0.99),
            cpu: (pod.cpu() - pod_before) / all,
            client: (cpu("self") - own_before) / all,
        }
    }

    fn open(&self, pod: &Pod, bodies: &[Bytes], rate: f64) -> Open {
        let arrived = open::load(pod.address, bodies, rate, warm_up(self.time), self.time);
        Open {
            rate,
            p50: percentile(&arrived.latencies, 0.5),
            p95: percentile(&arrived.latencies, 0.95),
            p99: percentile(&arrived.latencies, 0.99),
            late: percentile(&arrived.late, 0.99),
            refused: arrived.refused,
        }
    }
}
