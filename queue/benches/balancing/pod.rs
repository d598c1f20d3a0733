//! An inference pod as ours is: one queue, two sessions of one thread each, batches of texts of equal length.

use std::time::{Duration, Instant};

use kembed_queue::credit::PodLoad;
use kembed_queue::wire::Lane;
use kembed_queue::{Bounds, Budget, Lengths, Queue, Rate};

/// Sessions of a pod.
pub const SESSIONS: usize = 2;

/// What a batch holds.
const BATCH: Budget = Budget { tokens: 256, rows: 256 };

/// What a batch of MiniLM takes on one core, by the table of bare ONNX Runtime with two sessions of one thread: 2.3 ms,
/// and 0.1375 ms a token (16 tokens 4.5 ms, 8 x 16 tokens 19.9 ms, 256 tokens 37.5 ms).
pub fn batch_time(tokens: u64) -> Duration {
    Duration::from_nanos(2_300_000 + 137_500 * tokens)
}

/// One text of a request.
pub type Text = usize;

/// The pod.
#[derive(Debug)]
pub struct Pod {
    /// 1 is as fast as [`batch_time`] says.
    pub speed: f64,
    /// Tokens that it takes at once, in each lane.
    pub credit: u64,
    /// Tokens in hand, by lane.
    in_hand: [u64; 2],
    queue: Queue<Text>,
    idle: usize,
    rate: Rate,
    /// Tokens that were computed.
    pub done: u64,
}

impl Pod {
    pub fn new(speed: f64, credit: u64) -> Self {
        let queue = Queue::new(Bounds { tokens: u64::MAX, items: usize::MAX });
        Self { speed, credit, in_hand: [0; 2], queue, idle: SESSIONS, rate: Rate::default(), done: 0 }
    }

    /// Whether it has credit for another request of a lane.
    pub fn has_credit(&self, lane: Lane) -> bool {
        self.in_hand[lane as usize] < self.credit
    }

    /// Tokens in hand, of both lanes.
    pub fn in_hand(&self) -> u64 {
        self.in_hand.iter().sum()
    }

    /// What it tells with an answer to a request of so many tokens.
    pub fn load(&self, work: u64) -> PodLoad {
        const MANY: u64 = 1 << 30;
        let rate = self.rate.time_for(MANY, SESSIONS).map_or(0., |time| MANY as f64 / time.as_secs_f64());
        PodLoad { credit: self.credit, work, rate: rate as u64, sessions: SESSIONS as u64 }
    }

    /// Takes a request, whose texts all have the number of the request.
    pub fn take(&mut self, request: Text, texts: &[u32], lane: Lane, now: Instant) {
        for &tokens in texts {
            self.queue.push(request, tokens, lane, None, now).expect("there is no bound");
            self.in_hand[lane as usize] += u64::from(tokens);
        }
    }

    /// A request is answered.
    pub fn give(&mut self, texts: &[u32], lane: Lane) {
        self.in_hand[lane as usize] -= texts.iter().copied().map(u64::from).sum::<u64>();
    }

    /// Begins a batch, if a session is idle and a text waits: when it will be done, and what is in it.
    pub fn begin(&mut self, now: Instant) -> Option<(Duration, Vec<Text>)> {
        if self.idle == 0 || self.queue.is_empty() {
            return None;
        }
        let batch = self.queue.take(BATCH, Lengths::Equal, now, |_| false).batch;
        let tokens = batch.iter().map(|entry| u64::from(entry.tokens)).sum();
        let time = batch_time(tokens).div_f64(self.speed);
        self.idle -= 1;
        self.rate.observe(tokens, time);
        self.done += tokens;
        Some((time, batch.into_iter().map(|entry| entry.item).collect()))
    }

    /// A batch is done.
    pub fn end(&mut self) {
        self.idle += 1;
    }
}
