//! Whether a pod gets requests, judged by how it did with earlier ones.

use std::time::{Duration, Instant};

/// Errors in a row after which a pod is ejected. One may be its request's own doing.
pub const ERRORS: u32 = 3;

/// How long a pod is ejected at first; each time that its probe fails, twice as long.
pub const FIRST_EJECTION: Duration = Duration::from_millis(250);

/// The longest that a pod is ejected.
pub const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// How a pod failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It took no connection, broke one, or said that it is not ready: that is the pod's doing, and it is ejected at once.
    Connection,
    /// It answered with an error, or not in time.
    Answer,
}

/// What is known of a pod's health.
///
/// `Well -> Ejected` by a fault of its connection or [`ERRORS`] others in a row; `Ejected -> Probed` by one request once
/// its time is over; `Probed -> Well` if that is answered, else `-> Ejected` for twice the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It gets requests.
    Well {
        /// Errors since it last answered.
        errors: u32,
    },
    /// It gets none.
    Ejected {
        /// When that began.
        since: Instant,
        /// How often it was ejected without an answer in between, this time included.
        times: u32,
    },
    /// It has one request, which decides.
    Probed {
        /// As in [`Health::Ejected`].
        times: u32,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self::Well { errors: 0 }
    }
}

impl Health {
    /// Whether requests may go there as to any other pod.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Well { .. })
    }

    /// From when on it may be probed; `None` while it is well, or is being probed. Where no pod is well there is nothing
    /// to lose, and each is `alone`: it is probed after [`FIRST_EJECTION`] however often it failed.
    pub fn probe_at(self, alone: bool) -> Option<Instant> {
        let Self::Ejected { since, times } = self else { return None };
        let doubled = FIRST_EJECTION * 2u32.saturating_pow(times.saturating_sub(1)).min(1 << 16);
        Some(since + if alone { FIRST_EJECTION } else { doubled.min(LONGEST_EJECTION) })
    }

    /// It was given a request.
    pub fn given(&mut self) {
        if let Self::Ejected { times, .. } = *self {
            *self = Self::Probed { times };
        }
    }

    /// It answered.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The request that was to decide ended in a way that says nothing, as when its client left.
    pub fn undecided(&mut self, now: Instant) {
        if let Self::Probed { times } = *self {
            // It may be probed again at once.
            let since = now.checked_sub(LONGEST_EJECTION).unwrap_or(now);
            *self = Self::Ejected { since, times };
        }
    }

    /// It failed.
    pub fn failed(&mut self, fault: Fault, now: Instant) {
        *self = match (*self, fault) {
            // These were given before, and say nothing new.
            (ejected @ Self::Ejected { .. }, _) => ejected,
            (Self::Probed { times }, _) => Self::Ejected { since: now, times: times.saturating_add(1) },
            (Self::Well { errors }, Fault::Answer) if errors + 1 < ERRORS => {
                Self::Well { errors: errors + 1 }
            }
            (Self::Well { .. }, _) => Self::Ejected { since: now, times: 1 },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_in_a_row_and_a_broken_connection_at_once() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..10 {
            health.failed(Fault::Answer, now);
            health.failed(Fault::Answer, now);
            assert!(health.is_well());
            health.answered();
        }
        health.failed(Fault::Connection, now);
        assert_eq!(health.probe_at(false), Some(now + FIRST_EJECTION));
    }

    #[test]
    fn what_broke_with_the_first_does_not_make_it_longer() {
        let now = Instant::now();
        let mut health = Health::default();
        (0..30).for_each(|_| health.failed(Fault::Connection, now));
        assert_eq!(health.probe_at(false), Some(now + FIRST_EJECTION));
    }

    #[test]
    fn it_grows_while_probes_fail_and_one_answer_ends_it() {
        let now = Instant::now();
        let mut health = Health::default();
        let mut times = Vec::new();
        for _ in 0..40 {
            health.failed(Fault::Connection, now);
            times.push(health.probe_at(false).expect("ejected") - now);
            assert_eq!(health.probe_at(true), Some(now + FIRST_EJECTION), "with no other it is asked soon");
            health.given();
            assert_eq!(health.probe_at(false), None, "one request decides");
        }
        assert_eq!(times[..3], [FIRST_EJECTION, 2 * FIRST_EJECTION, 4 * FIRST_EJECTION]);
        assert_eq!(times[39], LONGEST_EJECTION);
        health.answered();
        assert!(health.is_well());
    }

    #[test]
    fn a_probe_that_says_nothing_is_repeated() {
        let now = Instant::now();
        let mut health = Health::default();
        health.failed(Fault::Connection, now);
        health.given();
        health.undecided(now);
        assert!(health.probe_at(true).is_some_and(|at| at <= now + FIRST_EJECTION));
    }
}
