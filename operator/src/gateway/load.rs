//! The gateway's load as its requests and the streams to the leader share it.
//!
//! Whoever carries a request says where it is: [`Board::arrive`] when it comes, [`Underway::start`] when a pod gets it,
//! [`Underway::end`] when it is over. Whoever finds a service without a pod says that it is wanted; whoever hears from a
//! pod how fast it is tells that by [`Board::rate`].

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::StatusCode;
use kembed_queue::{
    Past,
    report::Report,
    tally::{End, Passage, Tally},
    wire::Lane,
};
use tokio::sync::watch;

use super::{metrics::Metrics, name::ServiceName};

/// What all requests of this gateway do.
pub struct Board {
    tally: Mutex<Tally>,
    wake: watch::Sender<()>,
    metrics: Metrics,
}

impl Board {
    /// Begins a life of this gateway, which no other has the name of.
    pub fn new(metrics: Metrics) -> Self {
        // Seeded by the system: the only source of random numbers that the standard library has.
        let epoch = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        Self { tally: Mutex::new(Tally::new(epoch, Instant::now())), wake: watch::Sender::new(()), metrics }
    }

    /// A request has come, after what it went through at other gateways, and waits.
    pub fn arrive(self: &Arc<Self>, service: &ServiceName, past: Past, lane: Lane, tokens: u64) -> Underway {
        let passage = self.tally().arrive(past, service.as_str(), lane, tokens, Instant::now());
        Underway { board: self.clone(), passage: Some(passage), tokens: 0 }
    }

    /// Somebody asks for a service that has no pod: the leader hears it at once.
    pub fn want(&self, service: &ServiceName) {
        if self.tally().want(service.as_str(), Instant::now()) {
            self.metrics.wanted();
            self.wake.send_replace(());
        }
    }

    /// A pod told how many tokens a second it computes.
    pub fn rate(&self, service: &ServiceName, pod: &str, tokens_per_second: u64) {
        // It was not measured yet, or the pod is of a release that does not tell.
        if tokens_per_second == 0 {
            return;
        }
        self.tally().rate(service.as_str(), pod, tokens_per_second, Instant::now());
    }

    /// As [`Tally::keep_rates`], when the pods of a service change.
    pub fn keep_rates(&self, service: &ServiceName, is_pod: impl Fn(&str) -> bool) {
        self.tally().keep_rates(service.as_str(), is_pod);
    }

    /// As [`Tally::report`].
    pub fn report(&self, since: u64, is_asleep: impl Fn(&str) -> bool) -> (Report, u64) {
        self.tally().report(since, Instant::now(), is_asleep)
    }

    /// Tells when somebody begins to want a service. Several who do so before it is looked at are told of once.
    pub fn wakes(&self) -> watch::Receiver<()> {
        self.wake.subscribe()
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // What a panic left half counted is one request.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is counted as there until it is dropped.
pub struct Underway {
    board: Arc<Board>,
    passage: Option<Passage>,
    /// Tokens that it had, as its pod told.
    tokens: u64,
}

impl Underway {
    /// A pod gets it.
    pub fn start(&mut self) {
        if let Some(passage) = &mut self.passage {
            self.board.tally().start(passage, Instant::now());
        }
    }

    /// The pod gives it back untouched, and it waits again.
    pub fn give_back(&mut self) {
        if let Some(passage) = &mut self.passage {
            self.board.tally().give_back(passage, Instant::now());
        }
    }

    /// A pod answers it, and has counted so many tokens.
    pub fn told(&mut self, tokens: u64) {
        self.tokens = tokens;
    }

    /// Its answer is over, which had this status. Without one its client left before.
    pub fn answered(self, status: Option<StatusCode>) {
        let tokens = self.tokens;
        self.end(match status {
            None => End::Cancelled,
            Some(status) if status.is_server_error() => End::Failed,
            Some(_) => End::Answered { tokens },
        });
    }

    /// It is over. One that is dropped without this was cancelled by its client.
    pub fn end(mut self, end: End) {
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        if let Some(passage) = self.passage.take() {
            self.board.tally().end(passage, end, Instant::now());
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.finish(End::Cancelled);
    }
}

impl std::fmt::Debug for Underway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.passage.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn board() -> Arc<Board> {
        Arc::new(Board::new(Metrics::new(&mut Registry::default())))
    }

    fn name() -> ServiceName {
        ServiceName::new("team", "minilm").expect("two labels")
    }

    #[test]
    fn a_request_that_is_dropped_was_cancelled() {
        let board = board();
        drop(board.arrive(&name(), Past::default(), Lane::Bulk, 3));
        let answered = board.arrive(&name(), Past::default(), Lane::Bulk, 3);
        answered.end(End::Answered { tokens: 0 });
        let (report, _) = board.report(0, |_| true);
        let told = &report.services["team/minilm"];
        assert_eq!((told.counts.arrived, told.counts.cancelled, told.counts.answered), (2, 1, 1));
        assert_eq!(told.level.waiting.total(), 0);
    }

    #[test]
    fn many_who_begin_to_want_wake_once_and_none_is_missed() {
        let board = board();
        let mut wakes = board.wakes();
        board.want(&name());
        board.want(&name());
        assert!(wakes.has_changed().expect("the board is there"));
        wakes.mark_unchanged();
        board.want(&name());
        assert!(!wakes.has_changed().expect("the board is there"), "each second is enough for who waits on");
    }

    #[test]
    fn how_fast_pods_are_is_told_as_long_as_they_are_there() {
        let board = board();
        for (pod, rate) in [("a", 4000), ("b", 2000), ("a", 4100)] {
            board.rate(&name(), pod, rate);
        }
        board.keep_rates(&name(), |pod| pod == "a");
        let (report, _) = board.report(0, |_| true);
        assert_eq!(report.services["team/minilm"].rates, [("a".to_owned(), 4100)].into());
    }

    #[test]
    fn no_two_lives_have_the_same_name() {
        let epoch = |board: Arc<Board>| board.report(0, |_| true).0.epoch;
        assert_ne!(epoch(board()), epoch(board()));
    }
}
