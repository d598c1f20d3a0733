//! Answers requests for vectors: holds each until a pod may have it, sends it there, and elsewhere if that one fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Response, request, uri::PathAndQuery};
use kembed_queue::{
    Ask, Failure, PodId, credit::PodLoad, dispatcher, dispatcher::retry_after, figures::Figures, tally::End,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    activation::Activation,
    admission,
    attempt::Outcome,
    credit::Credit,
    directory::View,
    hedge::{self, Means, Second, Tried},
    inference::{self, Terms},
    knowledge::Knowledge,
    leg::Leg,
    load::{Board, Underway},
    metrics::Metrics,
    name::ServiceName,
    parcel::Offer,
    refusal::Refusal,
    service_queue::{Ended, ServiceQueue, WaitLimits, Word},
    turn::Turn,
    upstream::{PodBody, Upstream},
};

/// How often it is looked for whose pods somebody waits.
const SEEK: Duration = Duration::from_millis(25);

/// How long pods are still asked after the last one waited for them.
const SOUGHT_FOR: Duration = Duration::from_secs(1);

/// A request for vectors, as the owner of its service gets it.
#[derive(Debug)]
pub struct Asked {
    /// Whose.
    pub service: ServiceName,
    /// Its method and headers; of the URL nothing is used.
    pub head: Arc<request::Parts>,
    /// What to ask a pod for.
    pub target: PathAndQuery,
    /// All of its body, unless another gateway still has that.
    pub body: Bytes,
    /// The body that another gateway has.
    pub offer: Option<Box<Offer>>,
    /// What its client says beside it.
    pub terms: Terms,
}

/// A pod's answer, of which the body may still be coming.
#[derive(Debug)]
pub struct Served {
    /// The answer.
    pub response: Response<PodBody>,
    /// Until when it has to be complete.
    pub deadline: Instant,
    /// It counts as there until its last byte is sent.
    pub load: Underway,
}

/// How long things may take, and how much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For what waits.
    pub wait: WaitLimits,
    /// Time for a pod to answer, where the service does not say.
    pub request_timeout: Duration,
}

/// Owns services: whoever has a request for vectors asks here.
pub struct Owner {
    knowledge: Arc<Knowledge>,
    upstream: Upstream,
    load: Arc<Board>,
    metrics: Metrics,
    settings: Settings,
    activation: Activation,
    /// Of services that were asked for; each is dropped with its service.
    queues: RwLock<BTreeMap<ServiceName, Arc<ServiceQueue>>>,
    /// Somebody began to wait.
    someone_waits: Notify,
    /// Nobody may wait any more, for the gateway ends.
    is_closing: AtomicBool,
    seeds: RandomState,
}

impl Owner {
    /// Nobody has asked for anything yet.
    pub fn new(
        knowledge: Arc<Knowledge>,
        upstream: Upstream,
        load: Arc<Board>,
        metrics: Metrics,
        settings: Settings,
        activation: Activation,
    ) -> Self {
        Self {
            knowledge,
            upstream,
            load,
            metrics,
            settings,
            activation,
            queues: RwLock::default(),
            someone_waits: Notify::new(),
            is_closing: AtomicBool::new(false),
            seeds: RandomState::new(),
        }
    }

    /// Answers a request. If this is dropped, so is the request, wherever it is.
    ///
    /// # Errors
    /// If it is refused, or no pod could answer it.
    pub async fn serve(&self, mut asked: Asked) -> Result<Served, Refusal> {
        let view = self.view(&asked.service)?;
        demand(&asked, &view)?;
        let is_asleep = may_wait(&asked, &view)?;
        let tokens = admission::estimate(asked.body_size() as u64, &asked.target);
        let mut load = self.load.arrive(&asked.service, asked.terms.past, asked.terms.lane, tokens);
        if view.asleep {
            self.load.want(&asked.service);
        }
        match self.answer(&mut asked, is_asleep, &mut load).await {
            Ok((response, deadline)) => Ok(Served { response, deadline, load }),
            Err(refusal) => {
                load.end(end(&refusal));
                Err(refusal)
            }
        }
    }

    /// Waits until a pod may have the request, and sends it there.
    async fn answer(
        &self,
        asked: &mut Asked,
        is_asleep: bool,
        load: &mut Underway,
    ) -> Result<(Response<PodBody>, Instant), Refusal> {
        let ask = Ask { bytes: asked.size(), lane: asked.terms.lane, deadline: asked.terms.deadline };
        let mut turn = self.queue(&asked.service).arrive(ask, asked.terms.past);
        let word = if is_asleep {
            tokio::select! {
                biased;
                word = self.wait(&mut turn) => word,
                () = self.activation.impossible() => return Err(Refusal::ActivationUnavailable),
            }
        } else {
            self.wait(&mut turn).await
        };
        self.send(asked, turn, word, load).await
    }

    /// Follows what becomes known until the gateway ends. Those who still wait when `closing` is cancelled are sent away.
    pub async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut news = self.knowledge.news();
        let mut sought = BTreeMap::new();
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                _ = news.changed() => self.refresh(),
                () = self.someone_waits.notified() => (),
                () = sleep(SEEK), if !sought.is_empty() => (),
            }
            self.seek(&mut sought);
        }
        self.is_closing.store(true, Ordering::SeqCst);
        self.queues().iter().for_each(|(_, queue)| queue.close());
    }

    /// Sends those who wait away to the gateways that own their services, where it is not this one.
    pub fn give_way(&self, successor: impl Fn(&ServiceName) -> Option<String>) {
        for (name, queue) in self.queues() {
            if queue.has_waiting()
                && let Some(to) = successor(&name)
            {
                queue.send_away(&to);
            }
        }
    }

    /// What each service that was asked for has waiting and in hand, and what came and went.
    pub fn figures(&self) -> Vec<(ServiceName, Figures)> {
        self.queues().into_iter().map(|(name, queue)| (name, queue.figures())).collect()
    }

    /// How much the pods of all services that were asked for may be given, and have.
    pub fn credit(&self) -> Credit {
        let mut sum = Credit::default();
        self.queues().iter().for_each(|(_, queue)| sum += queue.credit());
        sum
    }

    /// Bytes of the bodies that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.queues().iter().map(|(_, queue)| queue.waiting_bytes()).sum()
    }

    /// Sends a request to pods until one answers it.
    async fn send(
        &self,
        asked: &mut Asked,
        mut turn: Turn,
        mut word: Word,
        underway: &mut Underway,
    ) -> Result<(Response<PodBody>, Instant), Refusal> {
        let (mut last, mut unreached) = (None, BTreeSet::new());
        loop {
            let granted = match word {
                Ok(granted) => granted,
                Err(why) => return self.without_pod(why, asked, last, &unreached),
            };
            demand(asked, &granted.view)?;
            underway.start();
            if let Some(offer) = asked.offer.take() {
                asked.body = offer.fetch().await?;
            }
            // In a box: who waits has no room for it.
            let Tried { outcome, limit, deadline, second } =
                Box::pin(hedge::run(self.means(), asked, &turn, &granted)).await;
            match outcome {
                Outcome::Answered(response, load) => {
                    let pod = second.as_ref().map_or(&granted.pod, |second| &second.pod);
                    let PodLoad { work, rate, .. } = load.unwrap_or_default();
                    underway.told(work);
                    self.load.rate(&asked.service, &pod.endpoint.pod, rate);
                    match second {
                        None => turn.answered(load),
                        Some(Second { failed, .. }) => turn.hedge_answered(load, failed),
                    }
                    return Ok((response, deadline));
                }
                Outcome::TimedOut => {
                    turn.timed_out();
                    return Err(Refusal::TimedOut { limit });
                }
                // As if it had left.
                Outcome::TooLate => return Err(Refusal::TimedOut { limit }),
                Outcome::NoCredit(load) => turn.no_credit(load),
                Outcome::Failed(failure, answer) => {
                    if failure == Failure::Unreached {
                        unreached.insert(granted.pod.endpoint.id);
                    }
                    last = answer.map(|response| (response, deadline));
                    turn.failed(failure);
                }
            }
            underway.give_back();
            word = self.wait(&mut turn).await;
        }
    }

    /// What comes of a request that gets no pod any more; `last` is the answer of the last one that failed.
    fn without_pod<T>(
        &self,
        why: Ended,
        asked: &Asked,
        last: Option<T>,
        unreached: &BTreeSet<PodId>,
    ) -> Result<T, Refusal> {
        let view = self.view(&asked.service)?;
        match why {
            Ended::Moved { .. } => Err(self.refusal(why, asked, &view)),
            // Else it would be told that all are busy.
            Ended::Refused(dispatcher::Refusal::Expired { .. })
                if last.is_none() && are_all(&view, unreached) =>
            {
                Err(Refusal::Unreachable { tried: unreached.len() })
            }
            // The answer of the last pod that failed says more.
            why => last.ok_or_else(|| self.refusal(why, asked, &view)),
        }
    }

    fn means(&self) -> Means<'_> {
        let request_timeout = self.settings.request_timeout;
        Means { upstream: &self.upstream, metrics: &self.metrics, request_timeout }
    }

    /// Waits for a pod, and has new pods looked for if that takes any time.
    async fn wait(&self, turn: &mut Turn) -> Word {
        if let Some(word) = turn.wait().now_or_never() {
            return word;
        }
        self.someone_waits.notify_one();
        let leg = Leg::hold();
        let word = turn.wait().await;
        leg.ended(if word.is_ok() { "granted" } else { "refused" }, false);
        word
    }

    fn view(&self, service: &ServiceName) -> Result<Arc<View>, Refusal> {
        let view = self.knowledge.read(|directory| directory.view(service).cloned());
        view.ok_or_else(|| Refusal::UnknownUrl { asked: Some(service.clone()) })
    }

    fn queue(&self, service: &ServiceName) -> Arc<ServiceQueue> {
        if let Some(queue) = self.queues.read().unwrap_or_else(PoisonError::into_inner).get(service) {
            return queue.clone();
        }
        let queue = {
            let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
            let new =
                || Arc::new(ServiceQueue::new(service.clone(), self.settings.wait, self.metrics.clone()));
            queues.entry(service.clone()).or_insert_with(new).clone()
        };
        // Only now, so that what becomes known from here on is told to a queue that is there.
        queue.refresh(&self.knowledge);
        if self.is_closing.load(Ordering::SeqCst) {
            queue.close();
        }
        queue
    }

    fn queues(&self) -> Vec<(ServiceName, Arc<ServiceQueue>)> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.iter().map(|(name, queue)| (name.clone(), queue.clone())).collect()
    }

    fn refresh(&self) {
        for (name, queue) in self.queues() {
            if !queue.refresh(&self.knowledge) {
                self.queues.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
            }
            let view = self.view(&name).ok();
            let pods = view.iter().flat_map(|view| view.endpoints.iter().flatten());
            self.load.keep_rates(&name, |pod| pods.clone().any(|endpoint| endpoint.pod == pod));
        }
    }

    /// Has the pods asked of services where somebody waits, or just did: under load that changes all the time.
    fn seek(&self, sought: &mut BTreeMap<ServiceName, Instant>) {
        let (now, before) = (Instant::now(), sought.len());
        let waiting = self.queues().into_iter().filter(|(_, queue)| queue.has_waiting());
        sought.retain(|_, last| now.duration_since(*last) < SOUGHT_FOR);
        let dropped = before - sought.len();
        let added = waiting.filter(|(name, _)| sought.insert(name.clone(), now).is_none()).count();
        if added + dropped > 0 {
            let services = sought.keys().cloned().collect();
            self.knowledge.update(|directory| directory.seek(services));
        }
    }

    fn refusal(&self, why: Ended, asked: &Asked, view: &View) -> Refusal {
        let why = match why {
            Ended::Refused(why) => why,
            Ended::Unavailable(why) => return Refusal::Unavailable(why),
            Ended::Gone => return Refusal::UnknownUrl { asked: Some(asked.service.clone()) },
            Ended::Closing => return Refusal::Closing,
            Ended::Moved { to, history } => {
                return Refusal::Moved { to: Some(to), history: Some(history) };
            }
        };
        let after = |wait| retry_after(wait, self.seeds.hash_one(Instant::now()));
        match why {
            dispatcher::Refusal::Full { wait } => {
                Refusal::QueueFull { after: after(wait.unwrap_or_default()) }
            }
            dispatcher::Refusal::TooLate { wait } => Refusal::TooLate { wait, after: after(wait) },
            dispatcher::Refusal::Expired { waited } => {
                let is_over = |deadline| deadline <= Instant::now().into_std();
                if asked.terms.deadline.is_some_and(is_over) {
                    Refusal::DeadlinePassed { waited }
                } else {
                    Refusal::Expired { waited, why: view.endpoints.as_ref().err().cloned() }
                }
            }
            dispatcher::Refusal::DiedTwice => Refusal::PodsDied,
            dispatcher::Refusal::NoRetriesLeft => Refusal::PodFailed,
        }
    }
}

impl Asked {
    fn body_size(&self) -> usize {
        self.offer.as_ref().map_or(self.body.len(), |offer| offer.bytes())
    }

    /// About how much text there is: what a GET asks for stands in its URL.
    fn size(&self) -> usize {
        self.body_size() + self.target.query().map_or(0, str::len)
    }
}

/// How a request without an answer ended for its service's load.
fn end(refusal: &Refusal) -> End {
    match refusal {
        Refusal::PodsDied | Refusal::PodFailed | Refusal::TimedOut { .. } => End::Failed,
        Refusal::Moved { .. } => End::Moved,
        _ => End::Refused,
    }
}

/// Whether these are all pods that may answer.
fn are_all(view: &View, pods: &BTreeSet<PodId>) -> bool {
    let endpoints = view.endpoints.as_deref().unwrap_or_default();
    !endpoints.is_empty() && endpoints.iter().all(|endpoint| pods.contains(&endpoint.id))
}

/// Refuses a request that wants the vectors of another space.
fn demand(asked: &Asked, view: &View) -> Result<(), Refusal> {
    match (&asked.terms.space, &view.space) {
        (Some(wanted), Some(recorded)) if *wanted != recorded.digest => {
            Err(Refusal::OtherSpace { recorded: recorded.digest.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether a request has to wait until the service is woken; refuses one that need not wait at all.
fn may_wait(asked: &Asked, view: &View) -> Result<bool, Refusal> {
    let Err(why) = &view.endpoints else { return Ok(false) };
    if !why.transient {
        return Err(Refusal::Unavailable(why.clone()));
    }
    // Of what is not here yet the gateway that sent it has looked.
    if asked.offer.is_none() {
        inference::look_over(&asked.head.method, &asked.body)?;
    }
    Ok(!view.is_starting)
}
