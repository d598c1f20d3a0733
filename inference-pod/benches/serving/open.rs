//! An open loop: requests come by chance at a given rate, however many have no answer yet. Each counts from when it was
//! due, so that a pod that stops for a second pays for all that would have come in it.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode, body::Bytes};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use super::{
    client::{Client, EMBEDDINGS, block_on, sorted},
    texts::Dice,
};

/// What was measured of the requests that were due in the time that counts.
#[derive(Default)]
pub struct Arrived {
    /// Seconds from when each was due to its answer, sorted.
    pub latencies: Vec<f64>,
    /// Seconds by which each was sent late, sorted: this program's own part.
    pub late: Vec<f64>,
    /// Requests that were refused.
    pub refused: usize,
}

/// Sends so many requests a second for so long. What is due before `warm_up` has passed is not counted.
pub fn load(
    address: SocketAddr,
    bodies: &[Bytes],
    rate: f64,
    warm_up: Duration,
    counted: Duration,
) -> Arrived {
    let (arrived, idle) = (Rc::<RefCell<Arrived>>::default(), Rc::<RefCell<Vec<Client>>>::default());
    let (sender, mut due) = unbounded_channel();
    let begin = Instant::now();
    let start = begin + warm_up;
    let times = arrivals(&mut Dice::new(2), rate, warm_up + counted);
    std::thread::scope(|scope| {
        scope.spawn(|| tick(begin, times, sender));
        block_on(async {
            let mut tasks = JoinSet::new();
            let mut bodies = bodies.iter().cycle();
            while let Some(due) = due.recv().await {
                let body = bodies.next().expect("it has no end").clone();
                let (arrived, idle) = (arrived.clone(), idle.clone());
                tasks.spawn_local(async move {
                    let (status, late) = send(address, &idle, body, due).await;
                    if start <= due {
                        arrived.borrow_mut().count(status, late, due.elapsed().as_secs_f64());
                    }
                });
            }
            tasks.join_all().await;
        });
    });
    let Arrived { latencies, late, refused } = arrived.take();
    Arrived { latencies: sorted(latencies), late: sorted(late), refused }
}

impl Arrived {
    fn count(&mut self, status: StatusCode, late: f64, took: f64) {
        self.late.push(late);
        if status == StatusCode::OK {
            self.latencies.push(took);
        } else {
            self.refused += 1;
        }
    }
}

/// Sends over a connection that has nothing to do, or a new one: how it ended, and how late it was sent.
async fn send(
    address: SocketAddr,
    idle: &RefCell<Vec<Client>>,
    body: Bytes,
    due: Instant,
) -> (StatusCode, f64) {
    let client = idle.borrow_mut().pop();
    let mut client = match client {
        Some(client) => client,
        None => Client::open(address).await.expect("the pod listens"),
    };
    let late = due.elapsed().as_secs_f64();
    let (status, _) = client.ask(Method::POST, EMBEDDINGS, body).await;
    idle.borrow_mut().push(client);
    (status, late)
}

/// When requests come, from the beginning on: with pauses whose lengths are distributed as between independent clients.
fn arrivals(dice: &mut Dice, rate: f64, time: Duration) -> Vec<Duration> {
    let mut now = Duration::ZERO;
    std::iter::from_fn(|| {
        // At no rate nothing ever comes.
        now += Duration::try_from_secs_f64(-dice.part().ln() / rate).ok()?;
        Some(now)
    })
    .take_while(|now| *now < time)
    .collect()
}

/// Tells when it is time. On a thread of its own: the runtime's timers go by whole milliseconds.
fn tick(begin: Instant, times: Vec<Duration>, sender: UnboundedSender<Instant>) {
    for time in times {
        let due = begin + time;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if sender.send(due).is_err() {
            return;
        }
    }
}
