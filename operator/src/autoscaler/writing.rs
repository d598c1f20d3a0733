//! How far the write of a service's count has come, and so what count to decide from. Pure: the time is an argument.

use std::time::{Duration, Instant};

use super::{
    change::{Change, Written, is_later},
    seen::Seen,
};

/// How long after a failed write of an unchanged service the next one follows.
const RETRY: Duration = Duration::from_secs(1);

/// `Idle` -> `Running` -> `Done`, or `Running` -> `Failed` -> `Running`.
#[derive(Debug, Default)]
pub(super) enum Writing {
    /// Nothing was written.
    #[default]
    Idle,
    /// It is on its way.
    Running,
    /// It was decided from this version, and failed then.
    Failed(String, Instant),
    /// The service has this count since this version.
    Done(String, u32),
}

impl Writing {
    /// The count that the service has, though it may not have been seen so yet.
    pub(super) fn count(&self, seen: &Seen) -> u32 {
        match self {
            Self::Done(version, count) if is_later(version, &seen.version) => *count,
            _ => seen.replicas,
        }
    }

    /// Whether what was written was seen.
    pub(super) fn is_settled(&self, version: &str) -> bool {
        match self {
            Self::Idle => true,
            Self::Running | Self::Failed(..) => false,
            Self::Done(written, _) => !is_later(written, version),
        }
    }

    /// Whether another count may be written now.
    pub(super) fn may_begin(&self, seen: &Seen, now: Instant) -> bool {
        match self {
            Self::Idle => true,
            Self::Running => false,
            Self::Failed(version, at) => {
                seen.version != *version || now.saturating_duration_since(*at) >= RETRY
            }
            // What is written next must be decided from that.
            Self::Done(written, _) => !is_later(written, &seen.version),
        }
    }

    /// A write begins.
    pub(super) fn begin(&mut self) {
        *self = Self::Running;
    }

    /// It has ended. One that is not known of, as of a leader before, says nothing.
    pub(super) fn end(&mut self, change: &Change, written: Written, now: Instant) {
        if matches!(self, Self::Running) {
            *self = match written {
                Written::Yes(version) => Self::Done(version, change.to),
                Written::No => Self::Failed(change.version.clone(), now),
            };
        }
    }
}
