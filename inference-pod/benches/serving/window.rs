//! How much is done in a time that neither begins nor ends with a piece of work.
//!
//! What was begun before it, or ended after it, counts in part: by how much of its time lies inside. Over all of time each piece
//! then counts once, however it is cut into windows. So what is counted in one that lies anywhere is on average what was
//! done, whether pieces end one by one or many at once. Counting ends is right on average too, but goes by whole pieces: where four
//! requests end together every 1.9 seconds, 8 seconds hold 16 ends or 20. From the first end to the last, the first not
//! counted, nothing counts in part; but three of the four that end with the first do, without their time: 19 instead of 16.
//!
//! Nobody stops before all have ended what they began in time: who is left alone would be faster than anybody ever was, and
//! its last piece would seem to lie inside more than it did.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// What goes before a measurement of that length and does not count.
pub fn warm_up(time: Duration) -> Duration {
    time.div_f64(6.)
}

/// The time that counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    start: Instant,
    length: Duration,
}

/// From its begin to its end.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub from: Instant,
    pub to: Instant,
}

impl Piece {
    /// Seconds.
    pub fn took(&self) -> f64 {
        (self.to - self.from).as_secs_f64()
    }
}

impl Window {
    pub fn new(start: Instant, length: Duration) -> Self {
        Self { start, length }
    }

    pub fn end(&self) -> Instant {
        self.start + self.length
    }

    /// Pieces that were done in it, in parts where they were.
    pub fn count(&self, pieces: &[Piece]) -> f64 {
        pieces.iter().map(|piece| self.part(piece)).sum()
    }

    /// Pieces a second.
    pub fn rate(&self, pieces: &[Piece]) -> f64 {
        self.count(pieces) / self.length.as_secs_f64()
    }

    /// Whether it ended inside.
    pub fn has_end(&self, piece: &Piece) -> bool {
        self.start <= piece.to && piece.to < self.end()
    }

    fn part(&self, piece: &Piece) -> f64 {
        let inside = piece.to.min(self.end()).saturating_duration_since(piece.from.max(self.start));
        // One that took no time lies nowhere in part.
        if piece.from == piece.to {
            f64::from(self.has_end(piece))
        } else {
            inside.as_secs_f64() / piece.took()
        }
    }
}

/// Those who work through a window, piece by piece.
pub struct Crew {
    window: Window,
    /// Who may still be at what they began in time.
    left: AtomicUsize,
}

impl Crew {
    pub fn new(window: Window, members: usize) -> Self {
        Self { window, left: AtomicUsize::new(members) }
    }

    /// One of as many as were said.
    pub fn member(&self) -> Member<'_> {
        Member { crew: self, pieces: Vec::new(), is_through: false }
    }
}

/// One of them, and what it has done. It is through when it is dropped, too.
pub struct Member<'a> {
    crew: &'a Crew,
    pieces: Vec<Piece>,
    is_through: bool,
}

impl Member<'_> {
    /// Whether there is more to do.
    pub fn goes_on(&self) -> bool {
        self.crew.left.load(Ordering::Relaxed) > 0
    }

    /// Notes what it did, which has just ended.
    pub fn did(&mut self, piece: Piece) {
        self.pieces.push(piece);
        if piece.to >= self.crew.window.end() {
            self.leave();
        }
    }

    /// All that it did.
    pub fn pieces(mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_through, true) {
            self.crew.left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
