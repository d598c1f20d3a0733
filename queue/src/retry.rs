//! Whether a request that failed is tried again.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::ejection::Fault;

/// Times that a request is given to pods which answer it with an error.
pub const ATTEMPTS: u32 = 3;

/// Retries for each request that comes.
const SHARE: f64 = 0.2;

/// Retries a second that are always there, so that a service with little traffic is not without any.
const PER_SECOND: f64 = 10.;

/// Retries that can be saved up.
const MOST: f64 = 100.;

/// How a request failed before the first byte of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent: no connection came about, or the one that was kept had been closed. Trying again loads nobody, and
    /// so goes on until the request's time is over.
    Unreached,
    /// The pod said that it is not ready, and did nothing with the request, as when its process has just started again and
    /// loads the model. Trying again loads nobody either.
    Unready,
    /// The connection broke after something was sent, as when the pod dies. The request may be the cause: it is suspect.
    Broke,
    /// The pod answered that it failed, and another might not.
    Erred,
}

impl Failure {
    /// What it says of the pod.
    pub fn fault(self) -> Fault {
        match self {
            Self::Unreached | Self::Unready | Self::Broke => Fault::Connection,
            Self::Erred => Fault::Answer,
        }
    }
}

/// What a request went through. A gateway writes it for the next one as a dictionary of RFC 9651: `errors=1, suspect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    errors: u32,
    suspect: bool,
}

/// What a request went through at other gateways; nothing, if it comes to the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// How long since it came to the first.
    pub waited: Duration,
    /// How it failed at their pods. `None` if none of them has let it in, and so none has counted it.
    pub history: Option<History>,
}

impl Past {
    /// A gateway gave it back; it has this history if that one had let it in.
    pub fn learn(&mut self, history: Option<History>) {
        self.history = history.or(self.history);
    }
}

/// What becomes of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It waits again, in its old place.
    Again,
    /// Two pods died while they had it, the second with nothing else in hand.
    DiedTwice,
    /// It was tried often enough, or so many were that more would make things worse.
    NoRetriesLeft,
}

impl History {
    /// Reads what another gateway wrote. Members that are not known are passed over, for a later one may tell more.
    pub fn parse(value: &str) -> Option<Self> {
        let mut history = Self::default();
        for member in value.split(',') {
            match member.trim().split_once('=').unwrap_or((member.trim(), "")) {
                ("errors", number) => history.errors = number.parse::<u32>().ok()?.min(ATTEMPTS),
                ("suspect", "") => history.suspect = true,
                _ => (),
            }
        }
        Some(history)
    }

    /// Whether a pod that has it must have nothing else.
    pub fn is_suspect(self) -> bool {
        self.suspect
    }

    /// Judges a request that failed. A suspect costs no budget: it is tried but once more, and few at a time are.
    pub fn judge(&mut self, failure: Failure, budget: &mut Budget, now: Instant) -> Verdict {
        match failure {
            Failure::Unreached | Failure::Unready => Verdict::Again,
            Failure::Broke if self.suspect => Verdict::DiedTwice,
            Failure::Broke => {
                self.suspect = true;
                Verdict::Again
            }
            Failure::Erred => {
                self.errors += 1;
                if self.errors < ATTEMPTS && budget.take(now) {
                    Verdict::Again
                } else {
                    Verdict::NoRetriesLeft
                }
            }
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errors={}{}", self.errors, if self.suspect { ", suspect" } else { "" })
    }
}

/// Retries that a service has left: in any time of `t` seconds in which `n` requests come there are at most
/// `100 + 10 t + n / 5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self { left: MOST, at: now }
    }

    /// A request came.
    pub fn earn(&mut self) {
        self.left = (self.left + SHARE).min(MOST);
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.at);
        self.left = (self.left + PER_SECOND * passed.as_secs_f64()).min(MOST);
        self.at = self.at.max(now);
        let may = self.left >= 1.;
        if may {
            self.left -= 1.;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn retries_stay_within_the_budget(steps in proptest::collection::vec((0u64..50, 0usize..4, 0usize..4), 0..300)) {
            let start = Instant::now();
            let (mut now, mut budget) = (start, Budget::new(start));
            let (mut came, mut taken) = (0, 0);
            for (ms, arrivals, tries) in steps {
                now += Duration::from_millis(ms);
                (0..arrivals).for_each(|_| budget.earn());
                came += arrivals;
                taken += (0..tries).filter(|_| budget.take(now)).count();
                let most = MOST + PER_SECOND * (now - start).as_secs_f64() + SHARE * came as f64;
                prop_assert!(taken as f64 <= most + 1e-6, "{taken} of {most}");
            }
        }
    }

    #[test]
    fn a_history_is_read_as_it_was_written() {
        for errors in 0..ATTEMPTS {
            for suspect in [false, true] {
                let history = History { errors, suspect };
                assert_eq!(History::parse(&history.to_string()), Some(history));
            }
        }
        let later = History::parse("errors=4000000000, dreamt, slept=7,suspect");
        assert_eq!(later, Some(History { errors: ATTEMPTS, suspect: true }));
        assert_eq!(History::parse("errors=many"), None);
    }

    #[test]
    fn a_suspect_dies_twice_and_no_more() {
        let now = Instant::now();
        let (mut history, mut budget) = (History::default(), Budget::new(now));
        assert_eq!(history.judge(Failure::Unreached, &mut budget, now), Verdict::Again);
        assert!(!history.is_suspect(), "the pod never had it");
        assert_eq!(history.judge(Failure::Broke, &mut budget, now), Verdict::Again);
        assert!(history.is_suspect());
        assert_eq!(history.judge(Failure::Unreached, &mut budget, now), Verdict::Again);
        assert_eq!(history.judge(Failure::Broke, &mut budget, now), Verdict::DiedTwice);
    }

    #[test]
    fn a_pod_that_is_not_ready_is_tried_until_it_is() {
        let now = Instant::now();
        let (mut history, mut budget) = (History::default(), Budget::new(now));
        for _ in 0..1000 {
            assert_eq!(history.judge(Failure::Unready, &mut budget, now), Verdict::Again);
        }
        assert_eq!((history, budget), (History::default(), Budget::new(now)), "it costs nothing");
    }

    #[test]
    fn an_error_is_tried_elsewhere_twice() {
        let now = Instant::now();
        let (mut history, mut budget) = (History::default(), Budget::new(now));
        let verdicts = [(); 3].map(|()| history.judge(Failure::Erred, &mut budget, now));
        assert_eq!(verdicts, [Verdict::Again, Verdict::Again, Verdict::NoRetriesLeft]);
    }
}
