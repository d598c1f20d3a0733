//! The other gateways: which there are, which are connected, and who of all keeps the queue of a service.
//!
//! A gateway counts while its pod is ready, does not end, and is connected. So all come to the same owner within
//! moments; while they differ two gateways keep the queue of one service, and pods refuse what is too much.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use kembed_runtime::crew::Crew;
use tokio::{runtime::Handle, sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    directory::Update,
    link::{self, Link},
    metrics::Metrics,
    name::ServiceName,
    objects::GatewayPod,
    ownership,
};

/// How long a gateway that another one named may take to become known here too.
const CATCH_UP: Duration = Duration::from_secs(1);

/// All gateways but this one, and this one's place among them.
pub struct Peers {
    /// `None` for a gateway that knows of no others.
    me: Option<String>,
    draining: CancellationToken,
    /// Threads that serve clients, each of which has connections of its own to the others.
    threads: Vec<Handle>,
    patience: link::Patience,
    roster: RwLock<Roster>,
    changed: watch::Sender<()>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Roster {
    is_listed: bool,
    /// This gateway as the others see it.
    own: Option<GatewayPod>,
    others: BTreeMap<String, Peer>,
    /// Of the next connection that is kept.
    next: u64,
}

#[derive(Debug)]
struct Peer {
    pod: GatewayPod,
    /// The connection that is kept is this one, by its number.
    kept: u64,
    link: Option<Link>,
    was_tried: bool,
    /// It has said that it is about to end, which its pod may not tell yet.
    is_ending: bool,
    _keeper: DropGuard,
}

/// Where a request is to be answered.
#[derive(Clone, Debug)]
pub enum Place {
    /// At this gateway.
    Here,
    /// At another one.
    There {
        /// Its name.
        name: String,
        /// To it.
        link: Link,
    },
}

/// What one request has learnt about where not to go, and where to go.
#[derive(Clone, Debug, Default)]
pub struct Journey {
    avoid: BTreeSet<String>,
    told: Option<String>,
}

impl Journey {
    /// This gateway did not answer.
    pub fn broke(&mut self, at: String) {
        self.told = None;
        self.avoid.insert(at);
    }

    /// This gateway (or this very one) gave the request back, and may have said who should have it.
    pub fn moved(&mut self, at: Option<String>, to: Option<String>) {
        if to.is_some() {
            // Whoever was tried before may be right by now.
            self.avoid.clear();
        }
        self.told = to;
        self.avoid.extend(at);
    }
}

impl Peers {
    /// A gateway of this name that knows of no others yet. Once `draining` is cancelled it owns nothing, if there is another.
    pub fn new(me: String, draining: CancellationToken, metrics: Metrics) -> Self {
        Self { me: Some(me), ..Self::alone(draining, metrics) }
    }

    /// The only gateway there will be.
    pub fn alone(draining: CancellationToken, metrics: Metrics) -> Self {
        let (roster, changed) = (RwLock::default(), watch::Sender::new(()));
        let patience = link::Patience::default();
        Self { me: None, draining, threads: Vec::new(), patience, roster, changed, metrics }
    }

    /// Waits so long for the others.
    pub fn with_patience(self, patience: link::Patience) -> Self {
        Self { patience, ..self }
    }

    /// Has the threads of this crew connect to the others, each by itself. Else it is whoever brings the news that there are
    /// others.
    pub fn reached_from(self, crew: &Crew) -> Self {
        Self { threads: crew.runtimes().cloned().collect(), ..self }
    }

    /// Whether the others were listed, and each that is ready was tried to reach: before that this one is taken for the
    /// owner of everything.
    pub fn is_settled(&self) -> bool {
        let roster = self.read();
        self.me.is_none()
            || roster.is_listed && roster.others.values().all(|peer| peer.was_tried || !peer.pod.serves)
    }

    /// Tells of each change from now on.
    pub fn news(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Where a request for this service goes next. There always is a place: this gateway, if there is no better one.
    pub fn place(&self, service: &ServiceName, journey: &Journey) -> Place {
        let Some(me) = &self.me else { return Place::Here };
        let roster = self.read();
        let candidates = || self.candidates(&roster, me).filter(|name| !journey.avoid.contains(*name));
        let told = journey.told.as_deref().and_then(|told| candidates().find(|name| *name == told));
        let owner = told.or_else(|| ownership::owner(service, candidates()));
        let peer = owner.and_then(|name| roster.others.get_key_value(name));
        match peer.and_then(|(name, peer)| Some((name.clone(), peer.link.clone()?))) {
            Some((name, link)) => Place::There { name, link },
            None => Place::Here,
        }
    }

    /// The gateway that owns this service, if it is another one.
    pub fn successor(&self, service: &ServiceName) -> Option<String> {
        match self.place(service, &Journey::default()) {
            Place::Here => None,
            Place::There { name, .. } => Some(name),
        }
    }

    /// Waits a moment for the gateway that a request was sent to, in case that it is not known here yet.
    pub async fn catch_up(&self, journey: &Journey) {
        let (Some(me), Some(told)) = (&self.me, &journey.told) else { return };
        let mut news = self.news();
        let known = async {
            while !self.candidates(&self.read(), me).any(|name| name == told) {
                // An error would mean that `self` is gone.
                let _ = news.changed().await;
            }
        };
        let _ = timeout(CATCH_UP, known).await;
    }

    /// Learns of gateways.
    pub fn update(self: &Arc<Self>, update: Update<GatewayPod>) {
        {
            let mut roster = self.write();
            match update {
                Update::All(pods) => {
                    let names: BTreeSet<_> = pods.iter().map(|pod| pod.name.clone()).collect();
                    roster.others.retain(|name, _| names.contains(name));
                    roster.own = None;
                    roster.is_listed = true;
                    pods.into_iter().for_each(|pod| self.put(&mut roster, pod));
                }
                Update::Put(pod) => self.put(&mut roster, pod),
                // Its connection is kept as long as something is on its way.
                Update::Gone(pod) => drop(roster.others.remove(&pod.name)),
            }
            self.count(&roster);
        }
        self.changed.send_replace(());
    }

    fn put(self: &Arc<Self>, roster: &mut Roster, pod: GatewayPod) {
        if self.me.as_ref() == Some(&pod.name) {
            roster.own = Some(pod);
            return;
        }
        if let Some(known) = roster.others.get_mut(&pod.name)
            && (known.pod.life == pod.life && known.pod.address == pod.address)
        {
            known.pod = pod;
            return;
        }
        let Some(address) = pod.address else {
            roster.others.remove(&pod.name);
            return;
        };
        let (name, kept, ended) = (pod.name.clone(), roster.next, CancellationToken::new());
        roster.next += 1;
        let keeper = ended.clone().drop_guard();
        let peer = Peer { pod, kept, link: None, was_tried: false, is_ending: false, _keeper: keeper };
        roster.others.insert(name.clone(), peer);
        let peers = Arc::downgrade(self);
        let tell = move |link| {
            if let Some(peers) = peers.upgrade() {
                peers.linked(&name, kept, link);
            }
        };
        let threads = match self.threads.as_slice() {
            [] => vec![Handle::current()],
            threads => threads.to_vec(),
        };
        tokio::spawn(link::keep(address, threads, self.patience, ended, tell));
    }

    /// A connection opened, closed or did not come about.
    fn linked(&self, name: &str, kept: u64, link: Option<Link>) {
        {
            let mut roster = self.write();
            let Some(peer) = roster.others.get_mut(name).filter(|peer| peer.kept == kept) else { return };
            if peer.link.is_some() != link.is_some() {
                tracing::info!(gateway = name, connected = link.is_some(), "another gateway");
            }
            // Whoever is reached anew is another process.
            (peer.link, peer.was_tried, peer.is_ending) = (link, true, false);
            self.count(&roster);
        }
        self.changed.send_replace(());
    }

    /// A gateway has said that it is about to end: it owns nothing any more.
    pub fn ends(&self, name: &str) {
        {
            let mut roster = self.write();
            let Some(peer) = roster.others.get_mut(name).filter(|peer| !peer.is_ending) else { return };
            tracing::info!(gateway = name, "another gateway is about to end");
            peer.is_ending = true;
        }
        self.changed.send_replace(());
    }

    /// Gateways that own something.
    fn candidates<'a>(&self, roster: &'a Roster, me: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        let own = roster.own.as_ref().is_none_or(|pod| pod.serves) && !self.draining.is_cancelled();
        let is_open = |peer: &Peer| peer.link.as_ref().is_some_and(|link| !link.is_closed());
        let others =
            roster.others.iter().filter(move |(_, peer)| peer.pod.serves && !peer.is_ending && is_open(peer));
        others.map(|(name, _)| name.as_str()).chain(own.then_some(me))
    }

    fn count(&self, roster: &Roster) {
        self.metrics.connected(roster.others.values().filter(|peer| peer.link.is_some()).count());
    }

    fn read(&self) -> RwLockReadGuard<'_, Roster> {
        // Nothing in there panics.
        self.roster.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Roster> {
        self.roster.write().unwrap_or_else(PoisonError::into_inner)
    }
}
