//! More than pods can do: what is refused, what goes first, and how a new pod comes to its share.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use kembed_queue::wire::{DEADLINE_HEADER, LANE_HEADER, Lane};
use serde_json::json;

use crate::{
    Bench, NAME,
    busy_pod::{BusyPod, TEXTS_HEADER},
    client::{Client, block_on, percentile, sorted},
    fleet::{Fleet, until},
    loads::{Aim, Due, Reply, arrivals, body, open},
    pod::{SESSIONS, batch_time},
    random::Random,
    report::{Row, median},
    traffic::{Sent, texts},
    world::World,
};

type Headers = Vec<(&'static str, String)>;

/// Gateways before pods that take their time.
struct Stage {
    world: World,
    pods: Vec<BusyPod>,
    fleet: Fleet,
}

impl Stage {
    /// So many gateways before pods that are so many times as fast as MiniLM on a core.
    fn start(bench: &Bench, gateways: usize, pods: usize, speed: f64) -> Self {
        let world = World::start();
        world.put_service(NAME, 1);
        let fleet = Fleet::start(&bench.program, &world, gateways, &[]);
        let mut stage = Self { world, pods: Vec::new(), fleet };
        (0..pods).for_each(|_| stage.join(speed));
        stage.fleet.await_known("pods", pods);
        // How fast pods are is not known before they have answered.
        let warm_up = Duration::from_secs(2);
        stage.open(arrivals(20. * pods as f64, warm_up, 1).map(|at| stage.due(at, &one(), Vec::new())));
        stage
    }

    /// One more pod.
    fn join(&mut self, speed: f64) {
        let pod = BusyPod::start(speed);
        self.world.put_pod(NAME, &format!("pod-{}", self.pods.len()), pod.address);
        self.pods.push(pod);
    }

    /// The one gateway, or one that forwards.
    fn aim(&self) -> Aim {
        let gateway = &self.fleet.gateways[self.fleet.gateways.len() / 2];
        Aim { address: gateway.address, service: NAME.to_owned() }
    }

    fn due(&self, at: Duration, sent: &Sent, headers: Headers) -> Due {
        Due { at, request: request(&self.aim(), sent, headers) }
    }

    fn open(&self, requests: impl Iterator<Item = Due>) -> Vec<Reply> {
        block_on(open(self.aim().address, requests))
    }
}

fn request(aim: &Aim, sent: &Sent, mut headers: Headers) -> Request<Full<Bytes>> {
    let tokens: Vec<_> = sent.texts.iter().map(u32::to_string).collect();
    headers.push((TEXTS_HEADER, tokens.join(",")));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    aim.request(&headers, body(sent.bytes))
}

/// A request of one text of [`TOKENS`].
fn one() -> Sent {
    Sent { lane: Lane::Interactive, texts: vec![TOKENS], bytes: 300 }
}

/// Tokens of each text where all are alike, and how many of them make a batch: so that what pods can do is known.
const TOKENS: u32 = 64;
const ROWS: u32 = 4;

/// How fast pods are: slow enough that two cores have time for thousands of clients.
const SPEED: f64 = 0.25;

/// How long clients of an overloaded service wait.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a client takes for "at once".
const AT_ONCE: Duration = Duration::from_millis(50);

/// Three times as many requests as the pods can answer, each of which says how long it waits.
pub fn overload(bench: &Bench) -> Vec<Row> {
    [1, 3].map(|gateways| overloaded(bench, gateways, 4)).into()
}

fn overloaded(bench: &Bench, gateways: usize, pods: usize) -> Row {
    let stage = Stage::start(bench, gateways, pods, SPEED);
    let batch = batch_time((TOKENS * ROWS).into()).div_f64(SPEED);
    let capacity = (pods * SESSIONS) as f64 * f64::from(ROWS) / batch.as_secs_f64();
    // Until as many wait as may; and then as long as all rounds of something else take.
    let (warm, counted) = (DEADLINE, bench.time * bench.rounds as u32 * 2);
    let deadline = || vec![(DEADLINE_HEADER, DEADLINE.as_millis().to_string())];
    let times = arrivals(3. * capacity, warm + counted, 2);
    let mut replies = stage.open(times.map(|at| stage.due(at, &one(), deadline())));
    replies.sort_by_key(|reply| reply.due);
    let measured = || replies.iter().filter(|reply| reply.due >= warm);
    let refused = || measured().filter(|reply| reply.status == StatusCode::TOO_MANY_REQUESTS);
    let admitted = || measured().filter(|reply| reply.status != StatusCode::TOO_MANY_REQUESTS);
    let good = admitted().filter(|reply| reply.status == StatusCode::OK && reply.took <= DEADLINE).count();
    let goodput = good as f64 / capacity / counted.as_secs_f64();
    let p95 = percentile(&sorted(admitted().map(|reply| reply.took.as_secs_f64()).collect()), 0.95);
    let at_once = share(refused(), |reply| reply.took <= AT_ONCE);
    let right = share(refused(), |reply| is_right(&replies, reply));
    Row {
        what: "overload 3 x".to_owned(),
        with: entry(gateways),
        figure: format!(
            "goodput {:.1} %, admitted p95 {p95:.2} s of {:.0} s, {:.1} % of {} refusals at once, Retry-After right for {:.1} %",
            goodput * 100.,
            DEADLINE.as_secs_f64(),
            at_once * 100.,
            refused().count(),
            right * 100.
        ),
        goal: "95 %, in time, at once, right within 30 %",
        is_met: Some(goodput >= 0.95 && p95 <= DEADLINE.as_secs_f64() && at_once >= 0.99 && right >= 0.95),
        rounds: json!({"goodput": goodput, "p95Seconds": p95, "atOnce": at_once, "right": right}),
    }
}

fn entry(gateways: usize) -> String {
    if gateways == 1 { "1".to_owned() } else { format!("{gateways}, forwarded") }
}

fn share<'a>(of: impl Iterator<Item = &'a Reply>, is_so: impl Fn(&Reply) -> bool) -> f64 {
    let (all, so) = of.fold((0, 0), |(all, so), reply| (all + 1, so + u32::from(is_so(reply))));
    f64::from(so) / f64::from(all.max(1))
}

/// Whether `Retry-After` is within 30 % of how long the one waited that came next before and was let in.
fn is_right(replies: &[Reply], refused: &Reply) -> bool {
    let before = replies.partition_point(|reply| reply.due < refused.due);
    let held = replies[..before].iter().rev().find_map(|reply| reply.held);
    held.zip(refused.retry_after).is_some_and(|(held, told)| (told - held).abs() <= 0.3 * held)
}

/// Interactive requests alone, and beside bulk of which there always is more.
pub fn beside_bulk(bench: &Bench) -> Vec<Row> {
    [1, 3].map(|gateways| lanes(bench, gateways, 4)).into()
}

/// What a pod answers of mixed texts at speed 1, by the simulation (docs/benchmarks/balancing.md).
const MIXED: f64 = 237.;

fn lanes(bench: &Bench, gateways: usize, pods: usize) -> Row {
    let stage = Stage::start(bench, gateways, pods, 2. * SPEED);
    let (rate, time) = (0.5 * MIXED * 2. * SPEED * pods as f64, bench.time * 3);
    let interactive = |seed| {
        let mut random = Random::new(seed);
        let stage = &stage;
        arrivals(rate, time, seed)
            .map(move |at| stage.due(at, &texts(1, Lane::Interactive, &mut random), Vec::new()))
    };
    let p99 = |replies: &[Reply]| {
        let took = replies.iter().filter(|reply| reply.due > time / 6 && reply.status == StatusCode::OK);
        percentile(&sorted(took.map(|reply| reply.took.as_secs_f64() * 1e3).collect()), 0.99)
    };
    let rounds: Vec<_> = (0..bench.rounds as u64)
        .map(|seed| {
            let alone = stage.open(interactive(seed));
            let (beside, bulk) = block_on(async {
                let bulk = join_all((0..50 * pods as u64).map(|seed| bulk(stage.aim(), seed, time)));
                tokio::join!(open(stage.aim().address, interactive(seed)), bulk)
            });
            [p99(&alone), p99(&beside), bulk.iter().sum::<usize>() as f64 / time.as_secs_f64()]
        })
        .collect();
    let of = |part: fn(&[f64; 3]) -> f64| median(rounds.iter().map(part));
    let (alone, beside, bulk) = (of(|round| round[0]), of(|round| round[1]), of(|round| round[2]));
    Row {
        what: "interactive p99 beside bulk".to_owned(),
        with: entry(gateways),
        figure: format!(
            "{:.2} x ({beside:.0} ms, alone {alone:.0}), with {bulk:.0} bulk requests/s of 8 texts",
            beside / alone
        ),
        goal: "1.5 x",
        is_met: Some(beside <= 1.5 * alone),
        rounds: json!(rounds),
    }
}

/// Sends one bulk request of eight texts after the other for so long: how many were answered.
async fn bulk(aim: Aim, seed: u64, time: Duration) -> usize {
    let (mut random, mut answered, end) = (Random::new(!seed), 0, Instant::now() + time);
    let mut client = Client::open(aim.address).await.expect("it listens");
    while Instant::now() < end {
        let sent = texts(8, Lane::Bulk, &mut random);
        let lane = vec![(LANE_HEADER, "bulk".to_owned())];
        let answer = client.send(request(&aim, &sent, lane)).await.expect("an answer");
        answered += usize::from(answer.status() == StatusCode::OK);
    }
    answered
}

/// A fourth pod comes when 2,000 requests wait for three.
pub fn joins(bench: &Bench) -> Vec<Row> {
    [1, 3].map(|gateways| joined(bench, gateways)).into()
}

fn joined(bench: &Bench, gateways: usize) -> Row {
    const BACKLOG: f64 = 2000.;
    // Some are answered while others come.
    const SENT: usize = 2600;
    let batch = batch_time(256).div_f64(SPEED).as_secs_f64() * 1e3;
    let rounds: Vec<_> = (0..bench.rounds as u64)
        .map(|round| {
            let mut stage = Stage::start(bench, gateways, 3, SPEED);
            let mut random = Random::new(round);
            let waiting = (0..SENT)
                .map(|_| stage.due(Duration::ZERO, &texts(1, Lane::Interactive, &mut random), Vec::new()));
            let (waiting, address) = (waiting.collect::<Vec<_>>(), stage.aim().address);
            std::thread::scope(|scope| {
                let clients = scope.spawn(move || block_on(open(address, waiting.into_iter())));
                let owner = &stage.fleet.gateways[0];
                until("enough wait", || owner.metric("kembed_gateway_waiting_requests") >= BACKLOG);
                let came = Instant::now();
                stage.join(SPEED);
                let took = shared(&stage.pods, came);
                let replies = clients.join().expect("all are answered");
                assert!(replies.iter().all(|reply| reply.status == StatusCode::OK), "all are answered");
                took
            })
        })
        .collect();
    let took = median(rounds.iter().copied());
    Row {
        what: "a pod joins under a backlog of 2,000".to_owned(),
        with: entry(gateways),
        figure: format!("its share after {took:.0} ms; a batch takes {batch:.0} ms"),
        goal: "one batch time",
        is_met: Some(took <= batch),
        rounds: json!(rounds),
    }
}

/// Milliseconds from `came` until the last of these pods has nine tenths of what the others have in hand on average.
fn shared(pods: &[BusyPod], came: Instant) -> f64 {
    let (new, others) = pods.split_last().expect("there are pods");
    loop {
        let mean = others.iter().map(BusyPod::in_hand).sum::<u64>() as f64 / others.len() as f64;
        if new.in_hand() as f64 >= 0.9 * mean {
            return came.elapsed().as_secs_f64() * 1e3;
        }
        assert!(came.elapsed() < DEADLINE, "it never gets its share");
        std::thread::sleep(Duration::from_micros(500));
    }
}
