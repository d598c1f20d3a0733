//! A closed loop: so many connections, each of which sends its next request when it has the last one's answer.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use hyper::{Method, StatusCode, body::Bytes};

use super::{
    client::{Client, EMBEDDINGS, READY, block_on, sorted},
    window::{Crew, Piece, Window},
};

/// Between two looks at the pod's health.
const PROBE: Duration = Duration::from_millis(20);

/// What was measured.
pub struct Measured {
    /// Requests a second, in the time that counts.
    pub rate: f64,
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
    let window = Window::new(Instant::now() + warm_up, counted);
    let (crew, next) = (Crew::new(window, connections), Cell::new(0));
    let asking = || async {
        let mut client = Client::open(address).await.expect("the pod listens");
        let mut member = crew.member();
        while member.goes_on() {
            let body = bodies[next.replace(next.get() + 1) % bodies.len()].clone();
            member.did(ask(&mut client, Method::POST, EMBEDDINGS, body).await);
        }
        member.pieces()
    };
    let probing = async {
        let mut client = Client::open(address).await.expect("the pod listens");
        let mut probes = Vec::new();
        while Instant::now() < window.end() {
            tokio::time::sleep(PROBE).await;
            probes.push(ask(&mut client, Method::GET, READY, Bytes::new()).await);
        }
        probes
    };
    let all = async { tokio::join!(join_all((0..connections).map(|_| asking())), probing) };
    let (asked, probes) = block_on(all);
    let asked = asked.concat();
    let times = |pieces: &[Piece]| {
        let inside = pieces.iter().filter(|piece| window.has_end(piece));
        sorted(inside.map(Piece::took).collect())
    };
    Measured {
        rate: window.rate(&asked),
        latencies: times(&asked),
        answered: asked.len(),
        health: times(&probes),
    }
}

/// Until the whole answer is there.
async fn ask(client: &mut Client, method: Method, path: &str, body: Bytes) -> Piece {
    let from = Instant::now();
    let (status, answer) = client.ask(method, path, body).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    Piece { from, to: Instant::now() }
}
