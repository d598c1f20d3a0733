//! A closed loop: so many connections, each of which sends its next request when it has the last one's answer.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use hyper::{Method, StatusCode, body::Bytes};

use super::client::{Client, EMBEDDINGS, READY, block_on, sorted};

/// Between two looks at the pod's health.
const PROBE: Duration = Duration::from_millis(20);

/// What was measured.
pub struct Measured {
    /// How long was counted.
    pub seconds: f64,
    /// Of each request that ended in that time, in seconds, sorted.
    pub latencies: Vec<f64>,
    /// Requests that were answered in all, before and after too.
    pub answered: usize,
    /// Of `/health/ready` meanwhile, in seconds, sorted.
    pub health: Vec<f64>,
}

/// Loads the pod for so long. What comes before `warm_up` has passed is not counted.
pub fn load(
    address: SocketAddr,
    bodies: &[Bytes],
    connections: usize,
    warm_up: Duration,
    counted: Duration,
) -> Measured {
    let (latencies, health) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let (next, answered) = (Cell::new(0), Cell::new(0));
    let start = Instant::now() + warm_up;
    let end = start + counted;
    let asking = || async {
        let mut client = Client::open(address).await.expect("the pod listens");
        while Instant::now() < end {
            let body = bodies[next.replace(next.get() + 1) % bodies.len()].clone();
            let took = ask(&mut client, Method::POST, EMBEDDINGS, body).await;
            answered.set(answered.get() + 1);
            // A request counts in full if it ends in the time that counts.
            let now = Instant::now();
            if start <= now && now < end {
                latencies.borrow_mut().push(took);
            }
        }
    };
    let probing = async {
        let mut client = Client::open(address).await.expect("the pod listens");
        while Instant::now() < end {
            tokio::time::sleep(PROBE).await;
            let took = ask(&mut client, Method::GET, READY, Bytes::new()).await;
            if start <= Instant::now() {
                health.borrow_mut().push(took);
            }
        }
    };
    block_on(async { tokio::join!(join_all((0..connections).map(|_| asking())), probing) });
    Measured {
        seconds: counted.as_secs_f64(),
        latencies: sorted(latencies.into_inner()),
        answered: answered.get(),
        health: sorted(health.into_inner()),
    }
}

/// Seconds until the whole answer is there.
async fn ask(client: &mut Client, method: Method, path: &str, body: Bytes) -> f64 {
    let start = Instant::now();
    let (status, answer) = client.ask(method, path, body).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    start.elapsed().as_secs_f64()
}
