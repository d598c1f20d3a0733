//! Writes the count of services that set `spec.scaling`, from what the gateways tell. It runs in the leader.
//!
//! [`streams`] brings what the gateways tell, [`kembed_queue::fleet`] joins it. [`activation`] wakes a service at zero at
//! once; [`plan`] looks at each other one once a second and decides; [`write`](mod@write) writes.

pub mod activation;
pub mod change;
pub mod decisions;
pub mod metrics;
pub mod needs;
pub mod plan;
pub mod seen;
pub mod settings;
pub mod sightings;
pub mod starting;
pub mod stream;
pub mod streams;
pub mod traffic;
pub mod write;

mod gateways;
mod looks;
mod writing;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kembed_crds::EmbeddingService;
use kembed_queue::fleet::Fleet;
use kembed_scaling::{Reason, Scaler};
use kube::runtime::reflector::Store;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use self::{
    activation::{Activations, Seen},
    change::{Change, Written},
    looks::Looks,
    sightings::Sightings,
    stream::Dialer,
    streams::{News, Whereabouts},
    write::{Writer, find},
};

/// Between two looks at all services.
const PERIOD: Duration = Duration::from_secs(1);

/// Between two looks at services at zero while a wake is not written: the service that changed in between is seen again
/// within that time.
const SOON: Duration = Duration::from_millis(20);

/// Reports that wait to be taken in.
const INBOX: usize = 64;

/// What the autoscaler works with.
#[derive(Clone)]
pub struct Autoscaler {
    /// Writes counts.
    pub writer: Writer,
    /// The pods of all services.
    pub pods: Store<Pod>,
    /// When they were seen.
    pub sightings: Sightings,
}

/// Follows the gateways and writes counts; never ends by itself.
pub async fn run(autoscaler: Autoscaler, whereabouts: Whereabouts, dialer: Dialer) {
    let (news, inbox) = mpsc::channel(INBOX);
    let (client, metrics) = (autoscaler.writer.client.clone(), autoscaler.writer.metrics.clone());
    let follow = streams::follow(client, whereabouts, dialer, news, metrics);
    tokio::join!(follow, listen(autoscaler, inbox));
}

async fn listen(autoscaler: Autoscaler, mut inbox: mpsc::Receiver<News>) {
    let writer = autoscaler.writer.clone();
    let mut fleet = Fleet::new(now());
    let mut activations = Activations::default();
    let mut looks = Looks::<Scaler>::new(autoscaler, now());
    let mut writes = FuturesUnordered::new();
    let mut ticks = interval(PERIOD);
    // After a pause one look is as good as many.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut changes = Vec::new();
        tokio::select! {
            news = inbox.recv() => match news {
                Some(News::Gateways(gateways)) => fleet.follow(&gateways),
                Some(News::Report { gateway, report }) => drop(fleet.receive(&gateway, report, now())),
                None => return,
            },
            Some((change, written)) = writes.next() => {
                let (change, written): (Change, Written) = (change, written);
                match (change.from, change.reason) {
                    (0, Reason::Activated) => activations.ended(&change, written, now()),
                    _ => looks.plan.ended(&change, written, now()),
                }
            }
            _ = ticks.tick() => changes = looks.all(&mut fleet, &activations, now()),
            () = settled_or_soon(&activations) => (),
        }
        let now = now();
        let wanted = fleet.wanted(now);
        changes.extend(activations.decide(&wanted, |name| see(&writer.services, name), now));
        writes.extend(changes.into_iter().map(|change| writer.clone().write(change, now)));
    }
}

/// Ends soon while a wake is not written, and never else.
fn settled_or_soon(activations: &Activations) -> impl Future<Output = ()> + use<> {
    let unsettled = activations.is_unsettled();
    async move {
        if !unsettled {
            std::future::pending::<()>().await;
        }
        sleep(SOON).await;
    }
}

/// The moment by the clock that tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What is known of the service `<namespace>/<name>`; nothing of one that is being deleted.
fn see(services: &Store<EmbeddingService>, name: &str) -> Option<Seen> {
    let object = find(services, name).filter(|object| object.metadata.deletion_timestamp.is_none())?;
    Some(Seen {
        scales: object.spec.scaling.is_some(),
        replicas: object.spec.replicas,
        ready: object.status.as_ref().map_or(0, |status| status.ready_replicas),
        version: object.metadata.resource_version.clone()?,
    })
}

#[cfg(test)]
mod tests;
