//! The world against what queueing theory says of it, to one per cent: Poisson arrivals, pods that take one request at a
//! time, and as many of them as are told.

use kembed_scaling::simulate::{Arrival, Fixed, PodModel, Trace, World, random::Random};

/// Mean seconds of a request at a pod.
const SERVICE: f64 = 0.1;

/// Tokens of such a request: many, so that their whole number hardly matters.
const TOKENS: f64 = 1e5;

/// Mean wait before a pod takes a request, in seconds, measured over that many requests.
fn wait(pods: u32, load: f64, requests: usize, mut tokens: impl FnMut(&mut Random) -> f64) -> f64 {
    let (mut random, mut at, mut served) = (Random::new(11), 0., 0.);
    let gap = SERVICE / load;
    let arrivals = (0..requests).map(|_| {
        at += random.exponential(gap);
        let tokens = tokens(&mut random).round().max(1.);
        served += tokens * SERVICE / TOKENS;
        Arrival { at, tokens: tokens as u32 }
    });
    let trace = Trace::new(arrivals.collect(), 0.);
    let world = World {
        // Each batch is one request.
        pod: PodModel { batch_seconds: 0., token_seconds: SERVICE / TOKENS, batch_tokens: 1 },
        start: 1.,
        nodes: None,
        target: f64::INFINITY,
        min: pods,
        max: pods,
        first: None,
        gateways: None,
    };
    let score = world.play(&trace, &mut Fixed(pods), &mut ());
    score.mean_latency() - served / requests as f64
}

/// The chance that a request waits where `load` pods' worth of work comes to `pods` of them.
fn erlang_c(pods: u32, load: f64) -> f64 {
    let blocked = (1..=pods).fold(1., |blocked, n| load * blocked / (f64::from(n) + load * blocked));
    let share = load / f64::from(pods);
    blocked / (1. - share * (1. - blocked))
}

fn assert_near(measured: f64, exact: f64) {
    assert!((measured / exact - 1.).abs() < 0.01, "measured {measured} s for {exact} s");
}

#[test]
fn one_pod_with_exponential_work() {
    let exponential = |random: &mut Random| random.exponential(TOKENS);
    for (load, requests) in [(0.3, 1_000_000), (0.5, 2_000_000), (0.7, 4_000_000)] {
        assert_near(wait(1, load, requests, exponential), load * SERVICE / (1. - load));
    }
}

#[test]
fn one_pod_with_equal_work() {
    for (load, requests) in [(0.3, 1_000_000), (0.5, 2_000_000), (0.7, 3_000_000)] {
        assert_near(wait(1, load, requests, |_| TOKENS), load * SERVICE / (2. * (1. - load)));
    }
}

#[test]
fn many_pods_with_exponential_work() {
    let exponential = |random: &mut Random| random.exponential(TOKENS);
    for (pods, load, requests) in [(3, 2., 4_000_000), (8, 6., 4_000_000)] {
        let exact = erlang_c(pods, load) * SERVICE / (f64::from(pods) - load);
        assert_near(wait(pods, load, requests, exponential), exact);
    }
}
