//! Asks each pod that became ready which vector space it serves and how fast it is, and each that somebody waits for whether
//! it is ready: the kubelet and the API server would take a second or more to tell.

use std::{collections::HashSet, error::Error, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use http::{StatusCode, Uri, uri::InvalidUri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kembed_queue::{
    device::Device,
    wire::{INFO_PATH, Info, READY_PATH},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{directory::Unproven, knowledge::Knowledge, load::Board};

/// Pods asked at the same time.
const CONCURRENT: usize = 32;

/// Time that a pod has to answer; it has nothing to compute.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a pod has which is only about to start: at its address there may be nobody yet, not even to refuse.
const EAGER_TIMEOUT: Duration = Duration::from_millis(250);

/// How often a pod is asked that somebody waits for.
const EAGER: Duration = Duration::from_millis(25);

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
    #[error("the pod's {0} computes wrong vectors")]
    Wrong(String),
    #[error("no answer in time")]
    TimedOut,
}

/// Asks every pod that has to be asked, until its space is known; never ends by itself.
pub async fn run(knowledge: Arc<Knowledge>, load: Arc<Board>) {
    let prober = Prober::new(knowledge.clone(), load);
    let mut news = knowledge.news();
    let mut asking = FuturesUnordered::new();
    let mut asked = HashSet::new();
    loop {
        for probe in knowledge.read(|directory| directory.unproven().collect::<Vec<_>>()) {
            if asked.insert(probe.clone()) {
                asking.push(prober.prove(probe));
            }
        }
        tokio::select! {
            _ = news.changed() => (),
            Some(probe) = asking.next() => {
                asked.remove(&probe);
            }
        }
    }
}

struct Prober {
    knowledge: Arc<Knowledge>,
    load: Arc<Board>,
    client: Client<HttpConnector, Empty<Bytes>>,
    slots: Semaphore,
}

impl Prober {
    fn new(knowledge: Arc<Knowledge>, load: Arc<Board>) -> Self {
        // A pod is asked for its space once, so that a connection kept for long would serve nobody.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(TIMEOUT)
            .pool_max_idle_per_host(1)
            .build_http();
        Self { knowledge, load, client, slots: Semaphore::new(CONCURRENT) }
    }

    /// Asks again and again while the pod is ready and has not told. Gives back what it was given.
    async fn prove(&self, probe: Unproven) -> Unproven {
        let pod = &probe.name.name;
        for attempt in 0.. {
            if !self.knowledge.read(|directory| directory.is_unproven(&probe)) {
                break;
            }
            let asked = Instant::now();
            match self.ask(&probe).await {
                Ok(info) => {
                    let digest = info.space.digest;
                    tracing::debug!(
                        namespace = probe.name.namespace,
                        pod,
                        digest,
                        "a pod told its vector space"
                    );
                    // What it was measured to do when it was warmed up: answers tell later what it does now.
                    self.load.rate(&probe.service, pod, info.tokens_per_second.unwrap_or(0));
                    self.knowledge.update(|directory| directory.proven(&probe, digest));
                }
                // It is only about to start.
                Err(_) if !probe.is_ready => sleep_until(asked + EAGER).await,
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

    async fn ask(&self, probe: &Unproven) -> Result<Info, ProbeError> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let asked = async {
            if !probe.is_ready {
                self.fetch(probe.address, READY_PATH).await?;
            }
            let info = self.fetch(probe.address, INFO_PATH).await?;
            let info: Info = serde_json::from_slice(&info).map_err(ProbeError::Malformed)?;
            match Device::first_wrong(&info.devices) {
                Some(device) => Err(ProbeError::Wrong(device.name.clone())),
                None => Ok(info),
            }
        };
        let limit = if probe.is_ready { TIMEOUT } else { EAGER_TIMEOUT };
        timeout(limit, asked).await.unwrap_or(Err(ProbeError::TimedOut))
    }

    async fn fetch(&self, address: SocketAddr, path: &str) -> Result<Bytes, ProbeError> {
        let uri: Uri = format!("http://{address}{path}").parse().map_err(ProbeError::Address)?;
        let response = self.client.get(uri).await.map_err(ProbeError::Send)?;
        let status = response.status();
        // Read also where it says nothing: so that the connection can be kept.
        let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(ProbeError::Body)?;
        if status == StatusCode::OK { Ok(body.to_bytes()) } else { Err(ProbeError::Status(status)) }
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
