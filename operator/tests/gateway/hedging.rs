//! Late requests are given to a second pod, where the service allows it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Full;
use operator::gateway::availability::Service;
use tokio::time::sleep;

use crate::support::*;

/// Requests after which it is known what is late.
const KNOWN: usize = 200;

/// Far longer than anything else takes here.
const STALL: Duration = Duration::from_millis(700);

/// Of so many requests that come to the pods one stalls, once they do.
const ONE_OF: usize = 30;

/// Pods that stall now and then, for a reason of their own.
#[derive(Clone, Default)]
struct Pods {
    stalls: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
}

/// Counts a stall that nobody waited for to its end.
struct Stall<'a>(&'a AtomicUsize);

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Pods {
    async fn pod(&self) -> SocketAddr {
        let pods = self.clone();
        pod_with(Router::new().fallback(move || {
            let pods = pods.clone();
            async move { pods.answer().await }
        }))
        .await
    }

    async fn answer(&self) -> (StatusCode, [(&'static str, &'static str); 2], &'static str) {
        let headers =
            [("x-kembed-pod-load", "credit=1, work=2, rate=1000, sessions=1"), ("x-should-retry", "true")];
        let came = self.came.fetch_add(1, Ordering::SeqCst) + 1;
        if self.stalls.load(Ordering::SeqCst) && came.is_multiple_of(ONE_OF) {
            let stall = Stall(&self.cancelled);
            sleep(STALL).await;
            std::mem::forget(stall);
        } else if self.fails.load(Ordering::SeqCst) {
            return (StatusCode::INTERNAL_SERVER_ERROR, headers, "no");
        }
        (StatusCode::OK, headers, "vector")
    }
}

/// A gateway with three of these pods, of which it knows how long they take.
async fn known(pods: &Pods, hedge_percent: Option<u32>) -> Bench {
    let bench = Bench::start().await;
    let addresses = [pods.pod().await, pods.pod().await, pods.pod().await];
    bench.add(Service { hedge_percent, ..service("team/minilm") }, &addresses);
    for _ in 0..KNOWN {
        assert_eq!(bench.ask(embed("interactive")).await.status, 200);
    }
    bench
}

fn embed(lane: &str) -> Request<Full<bytes::Bytes>> {
    let request = Request::post("/embed").header(HOST, "minilm.team").header("x-kembed-lane", lane);
    request.body(Full::from("\"x\"")).expect("a request")
}

/// How long 3 * [`ONE_OF`] requests took, the longest last.
async fn times(bench: &Bench, lane: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..3 * ONE_OF {
        let began = Instant::now();
        let answer = bench.ask(embed(lane)).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"vector"[..]));
        times.push(began.elapsed());
    }
    times.sort();
    times
}

fn hedges(bench: &Bench, outcome: &str) -> usize {
    let line = format!("kembed_gateway_hedges_total{{outcome=\"{outcome}\"}} ");
    let metrics = bench.metrics();
    metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn pods_that_stall_are_not_noticed() {
    let (mut slowest, pods) = (Vec::new(), Pods::default());
    for percent in [None, Some(5)] {
        pods.stalls.store(false, Ordering::SeqCst);
        let bench = known(&pods, percent).await;
        pods.stalls.store(true, Ordering::SeqCst);
        let times = times(&bench, "interactive").await;
        let p99 = times[times.len() - 1 - times.len() / 100];
        eprintln!("with {percent:?} % of hedges: p50 {:?}, p99 {p99:?}", times[times.len() / 2]);
        slowest.push(p99);
        let won = hedges(&bench, "won");
        assert_eq!(won > 0, percent.is_some(), "{won} were given to a second pod");
        let all = won + hedges(&bench, "lost") + hedges(&bench, "failed");
        assert!(all * 100 <= 5 * (KNOWN + 3 * ONE_OF), "{all} were given to a second pod");
    }
    assert!(slowest[0] >= STALL && slowest[1] < STALL, "{slowest:?}");
    // Those that lost were told, all but the one that no request came after.
    eventually(|| pods.cancelled.load(Ordering::SeqCst) > 0).await;
}

#[tokio::test]
async fn bulk_waits() {
    let pods = Pods::default();
    let bench = known(&pods, Some(5)).await;
    pods.stalls.store(true, Ordering::SeqCst);
    let times = times(&bench, "bulk").await;
    assert!(times[times.len() - 1] >= STALL);
    assert_eq!(hedges(&bench, "won") + hedges(&bench, "lost") + hedges(&bench, "failed"), 0);
}

#[tokio::test]
async fn a_second_pod_that_fails_is_no_harm() {
    let pods = Pods::default();
    let bench = known(&pods, Some(20)).await;
    // The next one that comes to a pod stalls, and whoever else has it fails.
    pods.came.store(ONE_OF - 1, Ordering::SeqCst);
    pods.stalls.store(true, Ordering::SeqCst);
    pods.fails.store(true, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(bench.ask(embed("interactive")).await.status, 200);
    assert!(began.elapsed() >= STALL, "the first pod answered");
    assert_eq!((hedges(&bench, "failed"), hedges(&bench, "won")), (1, 0));
}
