//! What the way through a gateway adds to a pod's answer, in time and in CPU.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;

use crate::{
    Bench, NAME,
    fleet::Fleet,
    loads::{Aim, closed},
    proxies::Proxy,
    quick_pod,
    report::{Row, median},
    world::World,
};

/// Clients of which each pauses so long on average send 1,000 requests a second together: as many as leave two cores time
/// for all that takes part. Without pauses it would be measured how fast the machine is, client and pod included.
pub const PAUSE: Duration = Duration::from_millis(100);

/// All ways to the same pod.
pub struct Ways {
    /// One gateway.
    pub alone: Fleet,
    /// Three of them.
    pub three: Fleet,
    proxies: Vec<Proxy>,
    pod: SocketAddr,
}

/// One of them.
struct Way {
    name: String,
    address: SocketAddr,
    goal: Option<f64>,
}

/// Milliseconds.
#[derive(Clone, Copy)]
struct Took {
    p50: f64,
    p99: f64,
}

impl Ways {
    /// Starts what there is.
    pub fn start(bench: &Bench) -> Self {
        let (port, service) = (quick_pod::start(), NAME);
        let pod = quick_pod::first(port);
        let fleet = |count| {
            let world = World::start();
            world.put_service(service, 1);
            world.put_pod(service, "pod-0", pod);
            let fleet = Fleet::start(&bench.program, &world, count, &[]);
            fleet.await_known("pods", 1);
            fleet
        };
        Self { alone: fleet(1), three: fleet(3), proxies: Proxy::start_all(pod), pod }
    }

    fn all(&self) -> Vec<Way> {
        let way = |name: &str, address, goal| Way { name: name.to_owned(), address, goal };
        let mut ways = vec![
            way("1", self.alone.gateways[0].address, Some(0.2)),
            way("3, at the owner", self.three.gateways[0].address, Some(0.2)),
            way("3, forwarded", self.three.gateways[1].address, Some(0.4)),
        ];
        ways.extend(self.proxies.iter().map(|proxy| way(proxy.name, proxy.address, None)));
        ways
    }

    /// Seconds of CPU of all that takes part in a way.
    fn cpu(&self, way: &str) -> f64 {
        match self.proxies.iter().find(|proxy| proxy.name == way) {
            Some(proxy) => proxy.cpu(),
            None if way == "1" => self.alone.cpu(),
            None => self.three.cpu(),
        }
    }
}

/// So many connections there.
pub fn aims(address: SocketAddr, connections: usize) -> Vec<Aim> {
    vec![Aim { address, service: NAME.to_owned() }; connections]
}

/// Milliseconds more than without a gateway, over one connection and over a hundred.
pub fn added(bench: &Bench) -> Vec<Row> {
    let ways = Ways::start(bench);
    let loads = [("1 connection", 1, None), ("100 connections", 100, Some(PAUSE))];
    let rows = loads.map(|(name, connections, pause)| {
        let measure = |address| {
            let measured = closed(&aims(address, connections), pause, bench.time);
            Took { p50: measured.ms(0.5), p99: measured.ms(0.99) }
        };
        let rounds: Vec<(Took, Vec<Took>)> = (0..bench.rounds)
            .map(|_| (measure(ways.pod), ways.all().iter().map(|way| measure(way.address)).collect()))
            .collect();
        let all = ways.all();
        all.iter()
            .enumerate()
            .map(|(i, way)| row(name, way, rounds.iter().map(|(direct, all)| (*direct, all[i]))))
            .collect::<Vec<_>>()
    });
    rows.into_iter().flatten().collect()
}

fn row(load: &str, way: &Way, rounds: impl Iterator<Item = (Took, Took)> + Clone) -> Row {
    let added =
        |of: fn(Took) -> f64| median(rounds.clone().map(|(direct, through)| of(through) - of(direct)));
    let took = |of: fn(Took) -> f64| median(rounds.clone().map(|(_, through)| of(through)));
    let (p50, p99) = (added(|took| took.p50), added(|took| took.p99));
    Row {
        what: format!("added latency, {load}"),
        with: way.name.clone(),
        figure: format!(
            "p50 {p50:+.3} ms, p99 {p99:+.3} ms (of {:.3} and {:.3})",
            took(|took| took.p50),
            took(|took| took.p99)
        ),
        goal: match way.goal {
            Some(0.2) => "p50 0.2 ms, p99 1 ms",
            Some(_) => "p50 0.4 ms, p99 1 ms",
            None => "",
        },
        is_met: way.goal.map(|goal| p50 <= goal && p99 <= 1.),
        rounds: rounds
            .map(|(direct, through)| {
                json!({"directMs": [direct.p50, direct.p99], "throughMs": [through.p50, through.p99]})
            })
            .collect(),
    }
}

/// Microseconds of CPU for a request, beside those of plain reverse proxies.
pub fn cpu(bench: &Bench) -> Vec<Row> {
    let ways = Ways::start(bench);
    let loads = [("100 connections at once", None), ("1,000 requests/s", Some(PAUSE))];
    let rows = loads.map(|(name, pause)| {
        let measure = |way: &Way| {
            let before = ways.cpu(&way.name);
            let measured = closed(&aims(way.address, 100), pause, bench.time);
            let spent = ways.cpu(&way.name) - before;
            (1e6 * spent / measured.answered as f64, measured.answered as f64 / bench.time.as_secs_f64())
        };
        let all = ways.all();
        let rounds: Vec<Vec<_>> = (0..bench.rounds).map(|_| all.iter().map(measure).collect()).collect();
        let of = |i: usize| median(rounds.iter().map(|round| round[i].0));
        let row = |(i, way): (usize, &Way)| {
            let proxies = (0..all.len()).filter(|i| all[*i].goal.is_none());
            let ratios: Vec<_> = proxies.map(|proxy| (proxy, of(i) / of(proxy))).collect();
            let least = ratios.iter().map(|(_, ratio)| *ratio).reduce(f64::min);
            let told = ratios.iter().map(|(proxy, ratio)| format!(", {ratio:.2} x {}", all[*proxy].name));
            let (is_gateway, rate) = (way.goal.is_some(), median(rounds.iter().map(|round| round[i].1)));
            Row {
                what: format!("CPU a request, {name}"),
                with: way.name.clone(),
                figure: format!(
                    "{:.0} us at {rate:.0}/s{}",
                    of(i),
                    if is_gateway { told.collect::<String>() } else { String::new() }
                ),
                goal: if is_gateway { "1.5 x nginx or haproxy" } else { "" },
                is_met: least.filter(|_| is_gateway).map(|least| least <= 1.5),
                rounds: rounds
                    .iter()
                    .map(|round| json!({"us": round[i].0, "perSecond": round[i].1}))
                    .collect(),
            }
        };
        all.iter().enumerate().map(row).collect::<Vec<_>>()
    });
    rows.into_iter().flatten().collect()
}
