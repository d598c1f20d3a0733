//! How long to wait before a watch that broke begins again.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// Before the first try again.
const FIRST: Duration = Duration::from_millis(800);

/// Longer is none. kube's own grow to a minute, and a controller's watches share them: for more than a minute after the
/// API server was back nobody heard of anything new, neither requests that wait for a pod nor who is to make one.
const LONGEST: Duration = Duration::from_secs(2);

/// Twice as long each time.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    next: Duration,
}

impl Pauses {
    /// Begins with the shortest.
    pub fn new() -> Self {
        Self { next: FIRST }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (2 * pause).min(LONGEST);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_and_stay_short() {
        let mut pauses = Pauses::new();
        let first: Vec<_> = pauses.by_ref().take(4).map(|pause| pause.as_millis()).collect();
        assert_eq!(first, [800, 1600, 2000, 2000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(FIRST));
    }
}
