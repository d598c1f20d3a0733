//! Whether a service at zero can be woken: without the API server nobody can make a pod.

use std::{future::pending, time::Duration};

use kube::{Api, Client, api::ListParams, core::ApiResource};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::objects::WatchedService;

/// Time that the API server has to answer: who is refused should know within a second.
const TIMEOUT: Duration = Duration::from_millis(800);

/// How long an answer counts: so many requests that come at once ask once.
const FRESH: Duration = Duration::from_secs(1);

/// Asks the API server whether it is there.
pub struct Activation {
    /// `None` where it is taken to be.
    api: Option<Api<WatchedService>>,
    last: Mutex<Option<(Instant, bool)>>,
}

impl Activation {
    /// Asks over this client.
    pub fn new(client: Client) -> Self {
        let resource = ApiResource::erase::<kembed_crds::EmbeddingService>(&());
        Self { api: Some(Api::all_with(client, &resource)), last: Mutex::default() }
    }

    /// Takes the API server to be there.
    pub fn assumed() -> Self {
        Self { api: None, last: Mutex::default() }
    }

    /// Ends only if the API server does not answer now.
    pub async fn impossible(&self) {
        if self.is_possible().await {
            pending().await
        }
    }

    async fn is_possible(&self) -> bool {
        let Some(api) = &self.api else { return true };
        let mut last = self.last.lock().await;
        if let Some((at, possible)) = *last
            && at.elapsed() < FRESH
        {
            return possible;
        }
        // One object at most, and from its memory.
        let asked = timeout(TIMEOUT, api.list(&ListParams::default().limit(1).match_any())).await;
        let possible = match asked {
            Err(_) | Ok(Err(kube::Error::Service(_) | kube::Error::HyperError(_))) => false,
            Ok(Err(kube::Error::Api(status))) => status.code < 500,
            Ok(_) => true,
        };
        *last = Some((Instant::now(), possible));
        possible
    }
}
