//! Late requests are given to a second pod, where the service allows it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Full;
use operator::gateway::availability::Service;
use tokio::{sync::Semaphore, time::sleep};

use crate::support::*;

/// Requests after which it is known what is late.
const KNOWN: usize = 200;

/// Longer than it takes until a request is late, as a rule.
const LATE: Duration = Duration::from_millis(300);

/// Of so many requests that come to the pods one stalls, once they do.
const ONE_OF: usize = 30;

/// Pods that stall now and then, for a reason of their own.
#[derive(Clone)]
struct Pods {
    stalls: Arc<AtomicBool>,
    fails: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    stalled: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
    /// A request that stalls goes on when there is a permit.
    goes_on: Arc<Semaphore>,
}

/// Counts a stall that nobody waited for to its end.
struct Stall<'a>(&'a AtomicUsize);

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Pods {
    fn new() -> Self {
        let goes_on = Arc::new(Semaphore::new(0));
        let (stalls, fails) = Default::default();
        let (came, stalled, cancelled) = Default::default();
        Self { stalls, fails, came, stalled, cancelled, goes_on }
    }

    /// The next request that comes to a pod stalls.
    fn stall_next(&self) {
        self.came.store(ONE_OF - 1, Ordering::SeqCst);
        self.stalls.store(true, Ordering::SeqCst);
    }

    async fn until_stalled(&self) {
        eventually(|| self.stalled.load(Ordering::SeqCst) > 0).await;
    }

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
            self.stalled.fetch_add(1, Ordering::SeqCst);
            self.goes_on.acquire().await.expect("never closed").forget();
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

fn hedges(bench: &Bench, outcome: &str) -> usize {
    let line = format!("kembed_gateway_hedges_total{{outcome=\"{outcome}\"}} ");
    let metrics = bench.metrics();
    metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

fn all_hedges(bench: &Bench) -> usize {
    hedges(bench, "won") + hedges(bench, "lost") + hedges(bench, "failed")
}

#[tokio::test]
async fn pods_that_stall_are_not_noticed() {
    let pods = Pods::new();
    // As many as there are requests: on a busy machine others are late, too.
    let bench = known(&pods, Some(100)).await;
    pods.stalls.store(true, Ordering::SeqCst);
    for _ in 0..3 * ONE_OF {
        let answer = bench.ask(embed("interactive")).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"vector"[..]));
    }
    // None of those that stalled went on.
    let (stalled, won) = (pods.stalled.load(Ordering::SeqCst), hedges(&bench, "won"));
    assert!(stalled > 0 && won > 0, "{won} of {stalled}");
    // Those that lost were told, all but the one that no request came after.
    eventually(|| pods.cancelled.load(Ordering::SeqCst) > 0).await;
}

#[tokio::test]
async fn who_may_not_be_given_to_two_pods_waits() {
    for (percent, lane) in [(None, "interactive"), (Some(100), "bulk")] {
        let pods = Pods::new();
        let bench = Arc::new(known(&pods, percent).await);
        let before = all_hedges(&bench);
        pods.stall_next();
        let asking = tokio::spawn({
            let bench = bench.clone();
            async move { bench.ask(embed(lane)).await }
        });
        pods.until_stalled().await;
        sleep(LATE).await;
        assert!(!asking.is_finished(), "{lane}");
        pods.goes_on.add_permits(1);
        assert_eq!(asking.await.expect("no panic").status, 200);
        assert_eq!(all_hedges(&bench), before, "{lane}");
    }
}

#[tokio::test]
async fn few_are_given_to_two_pods() {
    let pods = Pods::new();
    let bench = known(&pods, Some(5)).await;
    pods.stalls.store(true, Ordering::SeqCst);
    let going_on = tokio::spawn({
        let pods = pods.clone();
        async move {
            loop {
                sleep(LATE).await;
                pods.goes_on.add_permits(1);
            }
        }
    });
    let mut asked = KNOWN;
    for _ in 0..2 * ONE_OF {
        assert_eq!(bench.ask(embed("interactive")).await.status, 200);
        asked += 1;
        assert!(all_hedges(&bench) * 100 <= 5 * asked, "{} of {asked}", all_hedges(&bench));
    }
    going_on.abort();
}

#[tokio::test]
async fn a_second_pod_that_fails_is_no_harm() {
    let pods = Pods::new();
    let bench = Arc::new(known(&pods, Some(100)).await);
    // The next one that comes to a pod stalls, and whoever else has it fails.
    pods.stall_next();
    pods.fails.store(true, Ordering::SeqCst);
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { bench.ask(embed("interactive")).await }
    });
    eventually(|| hedges(&bench, "failed") == 1).await;
    pods.goes_on.add_permits(1);
    assert_eq!(asking.await.expect("no panic").status, 200, "the first pod answered");
    assert_eq!((hedges(&bench, "failed"), hedges(&bench, "won")), (1, 0));
}
