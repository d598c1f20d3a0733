//! What clients do.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use http_body_util::Full;
use hyper::{Request, StatusCode, body::Bytes};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    client::{Client, EMBEDDINGS, block_on, percentile, sorted},
    random::Random,
};

/// Where a client sends its requests: a program, and the service there.
#[derive(Clone)]
pub struct Aim {
    /// The program's address.
    pub address: SocketAddr,
    /// Name of the service.
    pub service: String,
}

impl Aim {
    /// A request with this body.
    pub fn request(&self, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
        let request = Request::post(EMBEDDINGS).header("host", format!("{}.team.svc", self.service));
        let request = request.header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Full::new(body)).expect("a good request")
    }
}

/// The body of a request, of about so many bytes.
pub fn body(bytes: usize) -> Bytes {
    Bytes::from(format!(r#"{{"model":"any","input":"{}"}}"#, "word ".repeat(bytes.saturating_sub(29) / 5)))
}

/// What came of requests of which one followed the other on each connection.
pub struct Closed {
    /// Seconds that each took, sorted.
    pub took: Vec<f64>,
    /// All requests, those before the measurement too.
    pub answered: usize,
}

impl Closed {
    /// The value below which that part of the times lies, in milliseconds.
    pub fn ms(&self, part: f64) -> f64 {
        percentile(&self.took, part) * 1e3
    }
}

/// One connection to each of these, over which a request follows the other, after pauses of this mean length, for so long.
/// The first quarter of the time is not counted.
pub fn closed(aims: &[Aim], pause: Option<Duration>, time: Duration) -> Closed {
    let (took, answered) = (RefCell::new(Vec::new()), RefCell::new(0));
    let begin = Instant::now();
    let (start, end) = (begin + time / 4, begin + time);
    let asking = |(i, aim): (usize, &Aim)| {
        let (aim, took, answered) = (aim.clone(), &took, &answered);
        let mut random = Random::new(i as u64);
        async move {
            let mut client = Client::open(aim.address).await.expect("it listens");
            let body = body(200);
            while Instant::now() < end {
                if let Some(pause) = pause {
                    sleep(pause.mul_f64(random.exponential())).await;
                }
                let sent = Instant::now();
                let answer = client.send(aim.request(&[], body.clone())).await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.body());
                *answered.borrow_mut() += 1;
                if sent >= start {
                    took.borrow_mut().push(sent.elapsed().as_secs_f64());
                }
            }
        }
    };
    block_on(join_all(aims.iter().enumerate().map(asking)));
    Closed { took: sorted(took.into_inner()), answered: answered.into_inner() }
}

/// A request that is due some time after the beginning.
pub struct Due {
    /// When.
    pub at: Duration,
    /// What.
    pub request: Request<Full<Bytes>>,
}

/// How a request went.
#[derive(Clone, Debug)]
pub struct Reply {
    /// When it was due.
    pub due: Duration,
    /// From then to the last byte of its answer.
    pub took: Duration,
    /// The status of that.
    pub status: StatusCode,
    /// Seconds that the gateway says it held it.
    pub held: Option<f64>,
    /// Seconds after which it may be sent again.
    pub retry_after: Option<f64>,
}

/// Sends requests when they are due, however many have no answer yet: over connections that have nothing to do, or new
/// ones. Gives back how they went, in the order of their answers.
pub async fn open(address: SocketAddr, requests: impl Iterator<Item = Due>) -> Vec<Reply> {
    let (idle, begin) = (Rc::<RefCell<Vec<Client>>>::default(), Instant::now());
    let mut asking = JoinSet::new();
    for Due { at, request } in requests {
        tokio::time::sleep_until((begin + at).into()).await;
        let idle = idle.clone();
        asking.spawn_local(async move {
            let client = idle.borrow_mut().pop();
            let mut client = match client {
                Some(client) => client,
                None => Client::open(address).await.expect("it listens"),
            };
            let answer = client.send(request).await.expect("an answer");
            idle.borrow_mut().push(client);
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            let held = header("server-timing").and_then(|timing| timing.split("hold;dur=").nth(1));
            let held = held.and_then(|rest| rest.split([',', ';']).next()?.parse::<f64>().ok());
            Reply {
                due: at,
                took: begin.elapsed().saturating_sub(at),
                status: answer.status(),
                held: held.map(|ms| ms / 1e3),
                retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()),
            }
        });
    }
    asking.join_all().await
}

/// When requests come that know nothing of each other: so many a second, for so long.
pub fn arrivals(rate: f64, time: Duration, seed: u64) -> impl Iterator<Item = Duration> {
    let (mut random, mut at) = (Random::new(seed), 0.);
    std::iter::from_fn(move || {
        at += random.exponential() / rate;
        Some(Duration::from_secs_f64(at))
    })
    .take_while(move |at| *at < time)
}
