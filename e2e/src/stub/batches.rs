//! What a stub has in hand: it takes all that waits, up to a batch, and sleeps for as long as that takes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kembed_scaling::simulate::PodModel;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, sleep},
};

/// Work in hand, and what does it.
#[derive(Clone)]
pub struct Batches {
    work: mpsc::UnboundedSender<Item>,
    in_hand: Arc<AtomicU64>,
}

struct Item {
    tokens: u64,
    done: oneshot::Sender<()>,
}

/// Counts tokens as in hand.
struct InHand(Arc<AtomicU64>, u64);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

impl Batches {
    /// With nothing in hand.
    pub fn new(model: PodModel) -> Self {
        let (work, inbox) = mpsc::unbounded_channel();
        tokio::spawn(compute(model, inbox));
        Self { work, in_hand: Arc::default() }
    }

    /// Tokens that wait or are computed.
    pub fn in_hand(&self) -> u64 {
        self.in_hand.load(Ordering::SeqCst)
    }

    /// Ends when so many tokens are computed. What is dropped before its batch began takes no time of it.
    pub async fn compute(&self, tokens: u64) {
        self.in_hand.fetch_add(tokens, Ordering::SeqCst);
        let _in_hand = InHand(self.in_hand.clone(), tokens);
        let (done, is_done) = oneshot::channel();
        // Both fail only when the runtime ends, and this with it.
        let _ = self.work.send(Item { tokens, done });
        let _ = is_done.await;
    }
}

async fn compute(model: PodModel, mut inbox: mpsc::UnboundedReceiver<Item>) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(item) => item,
            None => match inbox.recv().await {
                Some(item) => item,
                None => return,
            },
        };
        let mut tokens = 0;
        let mut batch = Vec::new();
        let mut candidate = Some(first);
        while let Some(item) = candidate {
            if item.done.is_closed() {
                candidate = inbox.try_recv().ok();
                continue;
            }
            if !batch.is_empty() && tokens + item.tokens > u64::from(model.batch_tokens) {
                next = Some(item);
                break;
            }
            tokens += item.tokens;
            batch.push(item.done);
            candidate = inbox.try_recv().ok();
        }
        if batch.is_empty() {
            continue;
        }
        sleep(Duration::from_secs_f64(model.seconds(tokens))).await;
        for done in batch {
            // Its client may have left meanwhile.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::join_all};
    use tokio::time::Instant;

    use super::*;

    /// A second for a batch, and a tenth for each token of ten.
    const MODEL: PodModel = PodModel { batch_seconds: 1., token_seconds: 0.1, batch_tokens: 10 };

    fn tenths(since: Instant) -> u128 {
        since.elapsed().as_millis().div_ceil(100)
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_computed_together_up_to_a_batch() {
        let (batches, began) = (Batches::new(MODEL), Instant::now());
        let ends = join_all([4, 4, 4, 20].map(async |tokens| {
            batches.compute(tokens).await;
            tenths(began)
        }));
        // Two fit together, the third goes alone for the one that follows it is longer than any batch.
        assert_eq!(ends.await, [18, 18, 18 + 14, 18 + 14 + 30]);
        assert_eq!(batches.in_hand(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_left_costs_nothing() {
        let (batches, began) = (Batches::new(MODEL), Instant::now());
        assert!(batches.compute(10).now_or_never().is_none());
        assert_eq!(batches.in_hand(), 0);
        batches.compute(5).await;
        assert_eq!(tenths(began), 15);
    }
}
