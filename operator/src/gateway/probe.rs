//! Asks each pod that became ready which vector space it serves.

use std::{collections::HashSet, error::Error, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use http::{StatusCode, Uri, uri::InvalidUri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kembed_queue::wire::{INFO_PATH, Info};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{directory::Unproven, knowledge::Knowledge};

/// Pods asked at the same time.
const CONCURRENT: usize = 32;

/// Time that a pod has to answer; it has nothing to compute.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that an answer may have; one has about 500.
const LIMIT: usize = 64 * 1024;

/// Why a pod could not be asked.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("the pod's address makes no URL")]
    Address(#[source] InvalidUri),
    #[error("failed to send the request")]
    Send(#[source] legacy::Error),
    #[error("the pod answered {0}")]
    Status(StatusCode),
    #[error("failed to read the answer")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    #[error("the answer is not what an inference pod tells")]
    Malformed(#[source] serde_json::Error),
    #[error("no answer within {TIMEOUT:?}")]
    TimedOut,
}

/// Asks every pod that has to be asked, until its space is known; never ends by itself.
pub async fn run(knowledge: Arc<Knowledge>) {
    let prober = Prober::new(knowledge.clone());
    let mut asking = FuturesUnordered::new();
    let mut asked = HashSet::new();
    loop {
        for probe in knowledge.read(|directory| directory.unproven().collect::<Vec<_>>()) {
            if asked.insert(probe.clone()) {
                asking.push(prober.prove(probe));
            }
        }
        tokio::select! {
            () = knowledge.changed() => (),
            Some(probe) = asking.next() => {
                asked.remove(&probe);
            }
        }
    }
}

struct Prober {
    knowledge: Arc<Knowledge>,
    client: Client<HttpConnector, Empty<Bytes>>,
    slots: Semaphore,
}

impl Prober {
    fn new(knowledge: Arc<Knowledge>) -> Self {
        // A pod is asked once, so that a connection kept would serve nobody.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { knowledge, client, slots: Semaphore::new(CONCURRENT) }
    }

    /// Asks again and again while the pod is ready and has not told. Gives back what it was given.
    async fn prove(&self, probe: Unproven) -> Unproven {
        let pod = &probe.name.name;
        for attempt in 0.. {
            if !self.knowledge.read(|directory| directory.is_unproven(&probe)) {
                break;
            }
            match self.ask(probe.address).await {
                Ok(info) => {
                    let digest = info.space.digest;
                    tracing::debug!(
                        namespace = probe.name.namespace,
                        pod,
                        digest,
                        "a pod told its vector space"
                    );
                    self.knowledge.update(|directory| directory.proven(&probe, digest));
                }
                Err(error) => {
                    let namespace = &probe.name.namespace;
                    tracing::warn!(
                        namespace,
                        pod,
                        error = &error as &dyn Error,
                        "failed to ask a pod for its space"
                    );
                    sleep(pause_after(attempt)).await;
                }
            }
        }
        probe
    }

    async fn ask(&self, address: SocketAddr) -> Result<Info, ProbeError> {
        let uri: Uri = format!("http://{address}{INFO_PATH}").parse().map_err(ProbeError::Address)?;
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        timeout(TIMEOUT, self.fetch(uri)).await.unwrap_or(Err(ProbeError::TimedOut))
    }

    async fn fetch(&self, uri: Uri) -> Result<Info, ProbeError> {
        let response = self.client.get(uri).await.map_err(ProbeError::Send)?;
        if response.status() != StatusCode::OK {
            return Err(ProbeError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(ProbeError::Body)?;
        serde_json::from_slice(&body.to_bytes()).map_err(ProbeError::Malformed)
    }
}

/// 100 ms, doubled with each attempt, up to 6.4 s.
fn pause_after(attempt: u32) -> Duration {
    Duration::from_millis(100 << attempt.min(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let pauses = [0, 1, 2, 6, 7, u32::MAX].map(|attempt| pause_after(attempt).as_millis());
        assert_eq!(pauses, [100, 200, 400, 6400, 6400, 6400]);
    }
}
