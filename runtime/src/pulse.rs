//! Whether a connection is in use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Counts the requests of one connection. Two numbers, and not a timer that each request sets anew: they are counted
/// often and looked at seldom.
pub(crate) struct Pulse {
    born: Instant,
    /// Requests that are not answered yet.
    busy: AtomicUsize,
    /// Milliseconds from birth to the end of the last request.
    last: AtomicU64,
}

/// One request; it is over when this is dropped.
pub(crate) struct Beat(Arc<Pulse>);

impl Pulse {
    /// Of a connection that has just begun.
    pub(crate) fn new(born: Instant) -> Self {
        Self { born, busy: AtomicUsize::new(0), last: AtomicU64::new(0) }
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Beat {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Beat(self.clone())
    }

    /// Waits until there was no request for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        let mut pause = limit;
        while !pause.is_zero() {
            sleep(pause).await;
            pause = match self.busy.load(Ordering::Relaxed) {
                0 => limit.saturating_sub(self.silence()),
                _ => limit,
            };
        }
    }

    fn silence(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let age = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(age, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_a_while_after_the_last_request() {
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let begun = Instant::now();
        let requests = async {
            sleep(LIMIT / 2).await;
            let first = pulse.begin();
            let second = pulse.begin();
            drop(first);
            sleep(LIMIT * 3).await;
            drop(second);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = requests => (),
            () = pulse.idle(LIMIT) => (),
        }
        assert_eq!(begun.elapsed(), LIMIT / 2 + LIMIT * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_request_it_is_idle_from_the_beginning() {
        let pulse = Pulse::new(Instant::now());
        let begun = Instant::now();
        pulse.idle(LIMIT).await;
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
