//! A gateway that ends loses no request.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get as answer};
use kembed_runtime::server::Patience;
use operator::gateway::server::Drain;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::support::*;

/// A gateway that is ready, before a pod that answers at `/` at once and at `/held` when there is a permit.
struct Held {
    bench: Arc<Bench>,
    release: Arc<Semaphore>,
    arrivals: mpsc::UnboundedReceiver<()>,
}

async fn held(drain: Drain) -> Held {
    // Nobody is given up on for being silent or slow before a test is over.
    let forever = 10 * PATIENCE;
    let patience = Patience { first_byte: forever, idle: forever, ..Patience::default() };
    let bench = Arc::new(Bench::start_with(Setup { drain, patience, ..Setup::default() }).await);
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let permits = release.clone();
    let hold = async move || {
        arrived.send(()).expect("a test that waits");
        permits.acquire().await.expect("a semaphore that is never closed").forget();
        "held"
    };
    let router = Router::new().route("/", answer(async || "at once")).route("/held", answer(hold));
    bench.add(service("team/minilm"), &[pod_with(router).await]);
    Held { bench, release, arrivals }
}

#[tokio::test]
async fn requests_that_still_come_are_answered() {
    let Held { bench, .. } = held(Drain { delay: PATIENCE, timeout: PATIENCE }).await;
    let before = bench.ask(get("minilm.team", "/")).await;
    assert_eq!((before.header("connection"), bench.gateway.is_ready()), (None, true));
    bench.shutdown.cancel();
    assert!(!bench.gateway.is_ready());
    let late = bench.ask(get("minilm.team", "/")).await;
    assert_eq!((late.body.as_ref(), late.header("connection")), ("at once".as_bytes(), Some("close")));
}

#[tokio::test]
async fn requests_in_hand_are_answered() {
    let drain = Drain { delay: Duration::ZERO, timeout: PATIENCE };
    let Held { bench, release, mut arrivals } = held(drain).await;
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { bench.ask(get("minilm.team", "/held")).await }
    });
    arrivals.recv().await.expect("the request in hand");
    bench.shutdown.cancel();
    eventually_refused(&bench).await;
    assert!(!bench.server.is_finished(), "a request is in hand");
    release.add_permits(1);
    assert_eq!(asking.await.expect("an answer").body, "held");
    eventually(|| bench.server.is_finished()).await;
}

/// Waits until no more connections are accepted.
async fn eventually_refused(bench: &Bench) {
    let refused = async {
        while TcpStream::connect(bench.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it came to refuse");
}

#[tokio::test]
async fn under_load_every_request_before_the_end_is_answered() {
    let drain = Drain { delay: Duration::from_secs(5), timeout: PATIENCE };
    let Held { bench, .. } = held(drain).await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let bench = bench.clone();
        clients.spawn(async move {
            let (end, mut answered) = (Instant::now() + Duration::from_millis(500), 0);
            while Instant::now() < end {
                assert_eq!(bench.ask(get("minilm.team", "/")).await.body, "at once");
                answered += 1;
            }
            answered
        });
    }
    bench.shutdown.cancel();
    let answered = clients.join_all().await;
    assert!(answered.iter().all(|&count| count > 0), "{answered:?}");
    eventually(|| bench.server.is_finished()).await;
}

#[tokio::test]
async fn an_idle_connection_does_not_keep_it_alive() {
    let drain = Drain { delay: Duration::ZERO, timeout: 2 * PATIENCE };
    let Held { bench, .. } = held(drain).await;
    let _silent = TcpStream::connect(bench.address).await.expect("a gateway that listens");
    // An answer on the later connection shows that the silent one is accepted.
    let mut http2 = http2(bench.address).await;
    let mut request = get("minilm.team", "/");
    *request.uri_mut() = "http://minilm.team/".parse().expect("a URL");
    assert_eq!(read(http2.send_request(request).await.expect("an answer")).await.body, "at once");
    bench.shutdown.cancel();
    eventually(|| bench.server.is_finished()).await;
}

#[tokio::test]
async fn a_request_that_is_never_answered_does_not_hold_it_for_ever() {
    let drain = Drain { delay: Duration::ZERO, timeout: Duration::from_millis(50) };
    let Held { bench, mut arrivals, .. } = held(drain).await;
    let asking = bench.ask(get("minilm.team", "/held"));
    let ending = async {
        arrivals.recv().await.expect("the request in hand");
        bench.shutdown.cancel();
        eventually(|| bench.server.is_finished()).await;
    };
    tokio::select! {
        _ = asking => panic!("nobody answers"),
        () = ending => (),
    }
}
