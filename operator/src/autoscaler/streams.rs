//! Keeps one stream of reports to each gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kembed_queue::report::Report;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt, reflector,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    gateways::{self, Gateway},
    metrics::Metrics,
    stream::{self, Dialer},
};
use crate::pauses::Pauses;

/// What the streams tell.
#[derive(Clone, Debug)]
pub enum News {
    /// The gateways that are followed, by the uid of their pods.
    Gateways(BTreeSet<String>),
    /// One of them told its load.
    Report {
        /// The uid of its pod.
        gateway: String,
        /// What it told.
        report: Report,
    },
}

/// Where gateways are found.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    /// Their namespace.
    pub namespace: String,
    /// A selector of labels that their pods have.
    pub selector: String,
}

/// Follows the gateways that serve; never ends by itself. A gateway that ends or gets unready is followed on until its
/// stream ends, for it still has requests.
pub async fn follow(
    client: Client,
    whereabouts: Whereabouts,
    dialer: Dialer,
    news: mpsc::Sender<News>,
    metrics: Metrics,
) {
    let (store, writer) = reflector::store();
    let pods = Api::<Pod>::namespaced(client, &whereabouts.namespace);
    let selected = watcher::Config::default().labels(&whereabouts.selector);
    let mut events = std::pin::pin!(
        watcher(pods, selected)
            .backoff(Pauses::new())
            .modify(|pod| pod.metadata.managed_fields = None)
            .reflect(writer)
    );
    let mut streams = Streams { dialer, news, metrics, open: BTreeMap::new(), tasks: JoinSet::new() };
    let mut listed = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Init | Event::InitApply(_))) => continue,
                Some(Ok(Event::InitDone)) => listed = true,
                Some(Ok(Event::Apply(_) | Event::Delete(_))) => (),
                Some(Err(error)) => {
                    tracing::warn!(error = &error as &dyn Error, "failed to watch the gateways; trying again");
                    continue;
                }
                None => return,
            },
            Some(ended) = streams.tasks.join_next() => {
                let uid = ended.expect("following a gateway does not panic, and is not aborted");
                streams.open.remove(&uid);
            }
        }
        if listed {
            let gateways = store.state().iter().filter_map(|pod| gateways::gateway(pod)).collect();
            streams.update(gateways).await;
        }
    }
}

struct Streams {
    dialer: Dialer,
    news: mpsc::Sender<News>,
    metrics: Metrics,
    /// By uid of the pod, whether it still serves. Dropping it ends the stream.
    open: BTreeMap<String, watch::Sender<bool>>,
    tasks: JoinSet<String>,
}

impl Streams {
    /// These gateways are there.
    async fn update(&mut self, gateways: Vec<Gateway>) {
        let uids: BTreeSet<&String> = gateways.iter().map(|gateway| &gateway.uid).collect();
        // A task that is told to end still stands in `tasks`, and what it gives back then is no key any more.
        self.open.retain(|uid, _| uids.contains(uid));
        for gateway in gateways {
            match self.open.get(&gateway.uid) {
                Some(stays) => drop(stays.send_if_modified(|stays| {
                    let was = std::mem::replace(stays, gateway.serves);
                    was != gateway.serves
                })),
                None if gateway.serves => self.open(gateway),
                None => (),
            }
        }
        self.metrics.follows(self.open.len());
        let _ = self.news.send(News::Gateways(self.open.keys().cloned().collect())).await;
    }

    fn open(&mut self, gateway: Gateway) {
        let (stays, told) = watch::channel(true);
        self.open.insert(gateway.uid.clone(), stays);
        let (dialer, news, metrics) = (self.dialer.clone(), self.news.clone(), self.metrics.clone());
        self.tasks.spawn(stream::keep(gateway, dialer, news, metrics, told));
    }
}
