//! Writes the count of services that set `spec.scaling`, from what the gateways tell. It runs in the leader, and in this
//! version does one thing: it wakes a service at zero when somebody asks for it.
//!
//! [`streams`] brings what the gateways tell, [`kembed_queue::fleet`] joins it, [`activation`] decides, [`wake`] writes.

pub mod activation;
pub mod decisions;
pub mod metrics;
pub mod stream;
pub mod streams;
pub mod wake;

mod gateways;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use kembed_crds::EmbeddingService;
use kembed_queue::fleet::Fleet;
use kube::runtime::reflector::Store;
use tokio::{sync::mpsc, time::sleep};

use self::{
    activation::{Activations, Seen, Written},
    stream::Dialer,
    streams::{News, Whereabouts},
    wake::{Waker, find},
};

/// Between two looks when there is no news.
const PERIOD: Duration = Duration::from_secs(1);

/// The same while a wake is not written: the service that changed in between is seen again within that time.
const SOON: Duration = Duration::from_millis(20);

/// Reports that wait to be taken in.
const INBOX: usize = 64;

/// Follows the gateways and wakes services; never ends by itself.
pub async fn run(waker: Waker, whereabouts: Whereabouts, dialer: Dialer) {
    let (news, inbox) = mpsc::channel(INBOX);
    let follow = streams::follow(waker.client.clone(), whereabouts, dialer, news, waker.metrics.clone());
    tokio::join!(follow, listen(waker, inbox));
}

async fn listen(waker: Waker, mut inbox: mpsc::Receiver<News>) {
    let mut fleet = Fleet::new(Instant::now());
    let mut activations = Activations::default();
    let mut wakes = FuturesUnordered::new();
    loop {
        let pause = if activations.is_unsettled() { SOON } else { PERIOD };
        tokio::select! {
            news = inbox.recv() => match news {
                Some(News::Gateways(gateways)) => fleet.follow(&gateways),
                Some(News::Report { gateway, report }) => drop(fleet.receive(&gateway, report, Instant::now())),
                None => return,
            },
            Some((wake, written)) = wakes.next() => {
                let written: Written = written;
                activations.ended(wake, written, Instant::now());
            }
            () = sleep(pause) => (),
        }
        let now = Instant::now();
        // What happened is of no use yet; taking it keeps it from piling up.
        waker.metrics.knows(fleet.step(now).is_ok());
        for wake in activations.decide(&fleet.wanted(now), |name| see(&waker.services, name), now) {
            wakes.push(waker.clone().wake(wake, now));
        }
    }
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
