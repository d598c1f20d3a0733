//! Requests, one after the other, for as long as something else goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};

use crate::{client::Client, wait::await_that};

/// Clients of a load that only watches.
const FEW: usize = 2;
/// Between two requests of one client: they are to notice a gap, not to use up two cores.
const PAUSE: Duration = Duration::from_millis(20);
/// What OpenAI's clients wait before they send a request again; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// How clients ask.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// So many at a time, each over a connection of its own.
    pub clients: usize,
    /// How often they send a request again that failed, waiting as OpenAI's clients do.
    pub retries: u32,
    /// Between an answer and the next request.
    pub pause: Duration,
    /// Whether all ask for the same vector: a pod computes it once for all who ask for it at the same time, and has time
    /// for them.
    pub alike: bool,
    /// Words of each text, beside two that tell it from others.
    pub words: usize,
}

impl Manner {
    /// So many clients that do not try again.
    pub fn of(clients: usize) -> Self {
        Self { clients, retries: 0, pause: PAUSE, alike: false, words: 0 }
    }
}

/// Clients that ask until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Outcome>>,
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers that are vectors.
    pub answered: usize,
    /// Requests that were sent again.
    pub retried: usize,
    /// What came of the others.
    pub failures: Vec<String>,
    /// How long each that was answered took, retries and all.
    pub times: Vec<Duration>,
}

impl Load {
    /// Begins to ask for embeddings below `base`.
    pub fn start(client: &Client, base: &str) -> Self {
        Self::of(Manner::of(FEW), client, base)
    }

    /// As [`Load::start`], in this manner.
    pub fn of(manner: Manner, client: &Client, base: &str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let url = format!("{base}/v1/embeddings");
        let asking =
            |_| tokio::spawn(ask(client.clone(), url.clone(), manner, stop.clone(), answered.clone()));
        let clients = (0..manner.clients).map(asking).collect();
        Self { clients, stop, answered }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// As [`Load::stop`], once more than so many were answered: so that what went on meanwhile was watched, however slow
    /// answers come.
    ///
    /// # Errors
    /// As [`Load::stop`].
    pub async fn stop_after(self, answered: usize) -> anyhow::Result<usize> {
        let enough = async || Ok((self.answered() > answered).then_some(()));
        let waited = await_that("requests to go through", enough).await;
        // Why they failed, if they did, says more.
        let answered = self.stop().await?;
        waited.map(|()| answered)
    }

    /// Ends when what is on its way is answered.
    ///
    /// # Errors
    /// If a client panicked.
    pub async fn end(self) -> anyhow::Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for client in self.clients {
            let one = client.await.context("a client panicked")?;
            all.answered += one.answered;
            all.retried += one.retried;
            all.failures.extend(one.failures);
            all.times.extend(one.times);
        }
        Ok(all)
    }

    /// As [`Load::end`], and returns how many requests were answered.
    ///
    /// # Errors
    /// If one was not, or none was sent.
    pub async fn stop(self) -> anyhow::Result<usize> {
        let Outcome { answered, retried, failures, .. } = self.end().await?;
        let (failed, first) = (failures.len(), failures.first().map(String::as_str).unwrap_or_default());
        ensure!(failed == 0, "{failed} requests failed and {answered} were answered; the first: {first}");
        ensure!(answered > 0, "no request was sent");
        if retried > 0 {
            eprintln!("{answered} requests were answered, {retried} times after a retry");
        }
        Ok(answered)
    }
}

async fn ask(
    client: Client,
    url: String,
    manner: Manner,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Outcome {
    let (mut outcome, more) = (Outcome::default(), " more".repeat(manner.words));
    while !stop.load(Ordering::Relaxed) {
        let number = if manner.alike { 0 } else { outcome.answered };
        let body = json!({"model": "any", "input": format!("request {number}{more}")});
        let (mut tried, began) = (0, Instant::now());
        loop {
            match client.post(&url, body.clone()).await.and_then(|answer| answer.success()) {
                Ok(_) => {
                    outcome.answered += 1;
                    outcome.times.push(began.elapsed());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) if tried < manner.retries => {
                    sleep(FIRST_RETRY * 2_u32.pow(tried)).await;
                    tried += 1;
                    outcome.retried += 1;
                    continue;
                }
                Err(error) => outcome.failures.push(format!("{error:#}")),
            }
            break;
        }
        sleep(manner.pause).await;
    }
    outcome
}
