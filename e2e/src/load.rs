//! Requests, one after the other, for as long as something else goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};

use crate::client::Client;

/// Clients of a load that only watches.
const FEW: usize = 2;
/// Between two requests of one client: they are to notice a gap, not to use up two cores.
const PAUSE: Duration = Duration::from_millis(20);
/// What OpenAI's clients wait before they send a request again; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Clients that ask until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Outcome>>,
}

#[derive(Default)]
struct Outcome {
    answered: usize,
    retried: usize,
    failures: Vec<String>,
}

impl Load {
    /// Begins to ask for embeddings below `base`.
    pub fn start(client: &Client, base: &str) -> Self {
        Self::of(FEW, client, base)
    }

    /// As [`Load::start`], with so many clients at a time.
    pub fn of(clients: usize, client: &Client, base: &str) -> Self {
        Self::retrying(0, clients, client, base)
    }

    /// As [`Load::of`], of clients that send a request that failed so many times more, waiting as OpenAI's do.
    pub fn retrying(retries: u32, clients: usize, client: &Client, base: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ask =
            |_| tokio::spawn(ask(client.clone(), format!("{base}/v1/embeddings"), retries, stop.clone()));
        Self { clients: (0..clients).map(ask).collect(), stop }
    }

    /// Ends, and returns how many requests were answered.
    ///
    /// # Errors
    /// If one was not, or none was sent.
    pub async fn stop(self) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for client in self.clients {
            let one = client.await.context("a client panicked")?;
            all.answered += one.answered;
            all.retried += one.retried;
            all.failures.extend(one.failures);
        }
        let (failed, first) =
            (all.failures.len(), all.failures.first().map(String::as_str).unwrap_or_default());
        ensure!(
            failed == 0,
            "{failed} requests failed and {} were answered; the first: {first}",
            all.answered
        );
        ensure!(all.answered > 0, "no request was sent");
        if all.retried > 0 {
            eprintln!("{} requests were answered, {} times after a retry", all.answered, all.retried);
        }
        Ok(all.answered)
    }
}

async fn ask(client: Client, url: String, retries: u32, stop: Arc<AtomicBool>) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"model": "any", "input": format!("request {}", outcome.answered)});
        let mut tried = 0;
        loop {
            match client.post(&url, body.clone()).await.and_then(|answer| answer.success()) {
                Ok(_) => outcome.answered += 1,
                Err(_) if tried < retries => {
                    sleep(FIRST_RETRY * 2_u32.pow(tried)).await;
                    tried += 1;
                    outcome.retried += 1;
                    continue;
                }
                Err(error) => outcome.failures.push(format!("{error:#}")),
            }
            break;
        }
        sleep(PAUSE).await;
    }
    outcome
}
