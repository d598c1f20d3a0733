//! Holds the Lease: acquires it, renews it, gives it back.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use tokio::time::{sleep, timeout};

use super::{
    fence::Fence,
    lease::{Candidate, RENEW_DEADLINE, RETRY_PERIOD, Step},
};
use crate::api_errors::words;

/// Name of the Lease.
pub const LEASE: &str = "kembed-controller";

/// The longest that one attempt may take: two fit before the leader must stop writing.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1500);

/// The longest that giving the Lease back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom the Lease is wanted for.
#[derive(Clone, Copy)]
enum Role {
    Standby,
    Leader,
}

/// A candidate for leadership, and the fence that it opens while it leads.
pub struct Leader {
    leases: Api<Lease>,
    candidate: Candidate,
    fence: Fence,
}

impl Leader {
    /// `client` must not be behind the fence, or nobody could ever open it.
    pub fn new(client: Client, namespace: &str, identity: &str, fence: Fence) -> Self {
        Self { leases: Api::namespaced(client, namespace), candidate: Candidate::new(identity), fence }
    }

    /// Returns once this process leads.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt(Role::Standby).await {
                Ok(true) => return,
                Ok(false) => tracing::debug!("another controller leads"),
                Err(error) => tracing::warn!(error = words(&error), "failed to acquire the lease"),
            }
            sleep(self.candidate.pause(Instant::now())).await;
        }
    }

    /// Renews until another leads, or has; then nothing can be written any more. While it cannot renew, the fence closes by
    /// itself, and the next renewal opens it again.
    pub async fn hold(&mut self) {
        loop {
            sleep(RETRY_PERIOD).await;
            match self.attempt(Role::Leader).await {
                Ok(true) => (),
                Ok(false) => break,
                Err(error) => tracing::warn!(error = words(&error), "failed to renew the lease"),
            }
        }
        self.fence.close();
    }

    /// Gives the Lease back, so that a standby need not wait for it to run out.
    pub async fn release(self) {
        self.fence.close();
        let released = timeout(RELEASE_TIMEOUT, self.empty()).await.map_err(|_| LeaseError::Timeout);
        if let Err(error) = released.and_then(|result| Ok(result?)) {
            tracing::warn!(error = words(&error), "failed to release the lease");
        }
    }

    async fn empty(&self) -> kube::Result<()> {
        let held = self.leases.get_opt(LEASE).await?;
        let Some(lease) = held.and_then(|lease| self.candidate.release(lease)) else { return Ok(()) };
        self.leases.replace(LEASE, &PostParams::default(), &lease).await.map(drop)
    }

    /// Whether this process leads now. The deadline counts from before the request was sent.
    async fn attempt(&mut self, role: Role) -> Result<bool, LeaseError> {
        let sent = Instant::now();
        let leads =
            timeout(REQUEST_TIMEOUT, self.step(role, sent)).await.map_err(|_| LeaseError::Timeout)??;
        if leads {
            self.fence.open_until(sent + RENEW_DEADLINE);
        }
        Ok(leads)
    }

    async fn step(&mut self, role: Role, now: Instant) -> kube::Result<bool> {
        let (lease, wall) = (self.leases.get_opt(LEASE).await?, Timestamp::now());
        let step = match role {
            Role::Standby => self.candidate.decide(lease.as_ref(), now, wall),
            Role::Leader => self.candidate.renew(lease.as_ref(), wall),
        };
        let written = match step {
            Step::Wait => return Ok(false),
            Step::Create(spec) => {
                let metadata = ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() };
                self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
            }
            Step::Replace(spec) => {
                // With the version that was read: if somebody else was faster, this is refused.
                let metadata = lease.map(|lease| lease.metadata).unwrap_or_default();
                self.leases
                    .replace(LEASE, &PostParams::default(), &Lease { metadata, spec: Some(spec) })
                    .await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Of a leader's it may have been an earlier one of its own that was slow: the next look tells.
            Err(kube::Error::Api(status)) if status.code == 409 && matches!(role, Role::Standby) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error(transparent)]
    Kube(#[from] kube::Error),
}
