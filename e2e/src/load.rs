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

/// Requests at the same time.
const CLIENTS: usize = 2;
/// Between two requests of one client: they are to notice a gap, not to use up two cores.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that ask until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Outcome>>,
}

#[derive(Default)]
struct Outcome {
    answered: usize,
    failures: Vec<String>,
}

impl Load {
    /// Begins to ask for embeddings below `base`.
    pub fn start(client: &Client, base: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |_| tokio::spawn(ask(client.clone(), format!("{base}/v1/embeddings"), stop.clone()));
        Self { clients: (0..CLIENTS).map(ask).collect(), stop }
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
        Ok(all.answered)
    }
}

async fn ask(client: Client, url: String, stop: Arc<AtomicBool>) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"model": "any", "input": format!("request {}", outcome.answered)});
        match client.post(&url, body).await.and_then(|answer| answer.success()) {
            Ok(_) => outcome.answered += 1,
            Err(error) => outcome.failures.push(format!("{error:#}")),
        }
        sleep(PAUSE).await;
    }
    outcome
}
