//! The requests of one service at the gateway that owns it: the [`Dispatcher`] among tasks. Here is who waits, what time
//! it is, and which pods there are; what follows from it is decided there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kembed_queue::{
    Ask, Config, Dispatcher, Grant, History, LineBounds, News, Past, PodId, Told,
    dispatcher::{self, Arrival},
    figures::Figures,
};
use tokio::{
    sync::{Notify, oneshot},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    availability::{Endpoint, Unavailable},
    credit::Credit,
    directory::View,
    knowledge::Knowledge,
    metrics::Metrics,
    name::ServiceName,
    turn::{Next, Turn},
};

/// Bounds on what waits, where the service sets none.
#[derive(Clone, Copy, Debug)]
pub struct WaitLimits {
    /// Requests of one service.
    pub requests: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
    /// How long each may wait.
    pub time: Duration,
}

/// The requests of one service.
pub struct ServiceQueue {
    name: ServiceName,
    limits: WaitLimits,
    pub(super) metrics: Metrics,
    state: Mutex<State>,
    /// Requests that wait.
    pub(super) waiting: AtomicUsize,
    /// The timer has to ring earlier than it was set to.
    earlier: Notify,
}

/// What is behind the lock.
pub(super) struct State {
    pub(super) dispatcher: Dispatcher<Waiter>,
    /// What pods and bounds were taken from.
    view: Option<Arc<View>>,
    /// The pods that were ever given a request and still exist.
    pods: BTreeMap<PodId, Arc<Pod>>,
    /// When the timer rings, if it runs.
    timer: Option<Instant>,
    /// Why nobody may wait, for nothing can come.
    hopeless: Option<Ended>,
}

/// Somebody who waits.
pub(super) type Waiter = oneshot::Sender<Word>;

/// What he is told.
pub(super) type Word = Result<Granted, Ended>;

/// Who is told what.
pub(super) type Letters = Vec<(Waiter, Word)>;

/// A request may go to a pod.
#[derive(Clone, Debug)]
pub struct Granted {
    /// As it was decided.
    pub grant: Grant,
    /// Where to.
    pub pod: Arc<Pod>,
    /// What was known of the service then.
    pub view: Arc<View>,
    /// If it took longer than this, another one may be asked too.
    pub hedge_after: Option<Duration>,
}

/// A pod that may be given requests, or was.
#[derive(Debug)]
pub struct Pod {
    /// Where it is.
    pub endpoint: Endpoint,
    /// It does not exist any more, and will answer nothing.
    pub gone: CancellationToken,
}

/// Why a request gets no pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// So the dispatcher decided.
    Refused(dispatcher::Refusal),
    /// No pod can come before somebody changes something.
    Unavailable(Unavailable),
    /// The service is gone.
    Gone,
    /// The gateway ends.
    Closing,
    /// Another gateway owns the service.
    Moved {
        /// Which.
        to: String,
        /// What the request went through here.
        history: History,
    },
}

impl ServiceQueue {
    /// Nobody waits, and no pod is known before the first [`ServiceQueue::refresh`].
    pub fn new(name: ServiceName, limits: WaitLimits, metrics: Metrics) -> Self {
        let state = State {
            dispatcher: Dispatcher::new(config(None, limits), now()),
            view: None,
            pods: BTreeMap::new(),
            timer: None,
            hopeless: None,
        };
        let (state, waiting, earlier) = (Mutex::new(state), AtomicUsize::new(0), Notify::new());
        Self { name, limits, metrics, state, waiting, earlier }
    }

    /// A request comes, after what it went through elsewhere.
    pub fn arrive(self: &Arc<Self>, ask: Ask, past: Past) -> Turn {
        let (ticket, next) = self.act(|state, now| {
            let mut coming = None;
            let waiter = || {
                let (waiter, word) = oneshot::channel();
                coming = Some(word);
                waiter
            };
            let Arrival { ticket, word, news } = state.dispatcher.enter(ask, past, waiter, now);
            let told = word.map(|word| state.word(word));
            let next = coming.map_or_else(|| Next::Told(told.flatten()), Next::Coming);
            ((ticket, next), state.letters(news))
        });
        Turn::new(self.clone(), ticket, ask.lane, next)
    }

    /// Takes over what is known of the service by now. `false` if there is no such service any more: then all who wait
    /// are told, and nobody is let in.
    pub fn refresh(self: &Arc<Self>, knowledge: &Knowledge) -> bool {
        self.act(|state, now| {
            // Looked up in here, so that of two callers the later one brings the later view.
            let Some(view) = knowledge.read(|directory| directory.view(&self.name).cloned()) else {
                state.hopeless = Some(Ended::Gone);
                return (false, Letters::new());
            };
            let is_old = state.view.as_ref().is_some_and(|known| Arc::ptr_eq(known, &view));
            (true, if is_old { Letters::new() } else { state.see(view, self.limits, now) })
        })
    }

    /// Sends away all who wait, and who comes.
    pub fn close(self: &Arc<Self>) {
        self.act(|state, _| {
            state.hopeless = Some(Ended::Closing);
            ((), Letters::new())
        });
    }

    /// Sends away all who wait to the gateway of this name; others may come.
    pub fn send_away(self: &Arc<Self>, to: &str) {
        let moved = |history| Ended::Moved { to: to.to_owned(), history };
        self.act(|state, now| ((), state.give_up(moved, now)));
    }

    /// Whether somebody waits for a pod.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How much the service's pods may be given, and have.
    pub fn credit(&self) -> Credit {
        let mut sum = Credit::default();
        self.lock().dispatcher.pods().for_each(|(_, pod)| sum += Credit::of(pod));
        sum
    }

    /// Bytes of the bodies that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.lock().dispatcher.waiting_bytes()
    }

    /// What waits, is in hand, came and went until now.
    pub fn figures(&self) -> Figures {
        self.lock().dispatcher.figures(now())
    }

    /// Has something done, tells those who are to be told of it, and sees to the timer.
    pub(super) fn act<R>(self: &Arc<Self>, act: impl FnOnce(&mut State, Instant) -> (R, Letters)) -> R {
        let mut state = self.lock();
        let now = now();
        let (result, mut letters) = act(&mut state, now);
        // Also who came back from a pod.
        if let Some(why) = state.hopeless.clone() {
            letters.extend(state.give_up(|_| why.clone(), now));
        }
        self.set_timer(&mut state, now);
        drop(state);
        // Who has left takes back what he asked for when he drops his turn.
        letters.into_iter().for_each(|(waiter, word)| drop(waiter.send(word)));
        result
    }

    fn set_timer(self: &Arc<Self>, state: &mut State, now: Instant) {
        let Some(at) = state.dispatcher.next_tick(now) else { return };
        match state.timer {
            None => drop(tokio::spawn(Self::ring(Arc::downgrade(self)))),
            Some(set) if at < set => self.earlier.notify_one(),
            Some(_) => return,
        }
        state.timer = Some(at);
    }

    /// The timer, which runs while somebody waits.
    async fn ring(queue: Weak<Self>) {
        while let Some(queue) = queue.upgrade() {
            let Some(at) = queue.lock().timer else { return };
            tokio::select! {
                () = time::sleep_until(at.into()) => queue.act(|state, now| {
                    let news = state.dispatcher.tick(now);
                    state.timer = state.dispatcher.next_tick(now);
                    ((), state.letters(news))
                }),
                () = queue.earlier.notified() => (),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in there leaves at worst one request counted that is none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn give_up(&mut self, why: impl Fn(History) -> Ended, now: Instant) -> Letters {
        let waiters = self.dispatcher.give_up_waiting(now);
        waiters.into_iter().map(|(waiter, history)| (waiter, Err(why(history)))).collect()
    }

    pub(super) fn letters(&self, news: News<Waiter>) -> Letters {
        let letter = |Told { waiter, word }| Some((waiter, self.word(word)?));
        news.into_iter().filter_map(letter).collect()
    }

    fn word(&self, word: Result<Grant, dispatcher::Refusal>) -> Option<Word> {
        match word {
            Err(refusal) => Some(Err(Ended::Refused(refusal))),
            // A pod that gets requests is one of these.
            Ok(grant) => self.granted(grant).map(Ok),
        }
    }

    pub(super) fn granted(&self, grant: Grant) -> Option<Granted> {
        let (pod, view) = (self.pods.get(&grant.pod)?.clone(), self.view.clone()?);
        Some(Granted { grant, pod, view, hedge_after: self.dispatcher.hedge_after(grant.ticket) })
    }

    /// Pods that get nothing for how they failed.
    pub(super) fn ejected(&self) -> usize {
        self.dispatcher.pods().filter(|(_, pod)| !pod.health.is_well()).count()
    }

    fn see(&mut self, view: Arc<View>, limits: WaitLimits, now: Instant) -> Letters {
        for (_, lost) in self.pods.extract_if(.., |id, _| !view.pods.contains(id)) {
            lost.gone.cancel();
        }
        let endpoints = view.endpoints.as_deref().unwrap_or_default();
        for endpoint in endpoints {
            let is_known = self.pods.get(&endpoint.id).is_some_and(|pod| pod.endpoint == *endpoint);
            if !is_known {
                let pod = Pod { endpoint: endpoint.clone(), gone: CancellationToken::new() };
                self.pods.insert(endpoint.id, Arc::new(pod));
            }
        }
        self.dispatcher.set_config(config(Some(&view), limits));
        self.dispatcher.set_hedging(view.hedge_percent);
        let news = self.dispatcher.set_pods(endpoints.iter().map(|endpoint| endpoint.id), now);
        let lasting = view.endpoints.as_ref().err().filter(|why| !why.transient);
        self.hopeless = lasting.map(|why| Ended::Unavailable(why.clone()));
        self.view = Some(view);
        self.letters(news)
    }
}

fn config(view: Option<&View>, limits: WaitLimits) -> Config {
    let requests = view.and_then(|view| view.queued).unwrap_or(limits.requests);
    let queue_timeout = view.and_then(|view| view.queue_timeout).unwrap_or(limits.time);
    Config { bounds: LineBounds { requests, bytes: limits.bytes }, queue_timeout }
}

fn now() -> Instant {
    time::Instant::now().into_std()
}
