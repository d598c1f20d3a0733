//! What becomes of the count: at once up, slowly down, and not at all while something stands in the way.

use super::look::Supply;
use crate::{decision::Reason, observation::Pods};

/// What is known when the count is decided.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// The fewest and the most.
    pub bounds: (u32, u32),
    /// The pods.
    pub supply: Supply,
    /// The pod that was made last ends again and again.
    pub crash_looping: bool,
    /// No node can come.
    pub no_capacity: bool,
    /// How many are needed, and the reason why so many.
    pub need: (u32, Reason),
    /// The most that was needed lately.
    pub peak: u32,
    /// Somebody waits at zero.
    pub wanted: bool,
    /// A backlog stands, and nobody may be removed.
    pub stands: bool,
    /// The load is known.
    pub known: bool,
    /// It is known how fast a pod is.
    pub measured: bool,
    /// Pods are known to come, and more than one is needed for certain though none is ready.
    pub sure: bool,
    /// Nobody asked for long enough.
    pub idle: bool,
}

/// The count that follows, and why it is another, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another count.
    To(u32, Reason),
    /// The same, as it should be.
    Stay,
    /// The same, though another is needed: the reason is one that [stands in the way](Reason::stands_in_the_way).
    Blocked(Reason),
}

impl Situation {
    /// What the pods themselves say is in the way.
    pub fn with(self, pods: &Pods) -> Self {
        Self { crash_looping: pods.crash_looping, no_capacity: pods.no_capacity, ..self }
    }

    /// Decides.
    pub fn step(&self) -> Step {
        let (least, most) = self.bounds;
        let wanted = self.supply.wanted;
        let within = wanted.clamp(least, most.max(least));
        if within != wanted {
            return Step::To(within, Reason::Bounds);
        }
        if wanted == 0 {
            let wake = self.wanted || (self.known && self.need.0 > 0);
            return if wake { Step::To(1, Reason::Activated) } else { Step::Stay };
        }
        if !self.known {
            return Step::Blocked(Reason::LoadUnknown);
        }
        let (need, reason) = self.need;
        if need > wanted {
            return self.up(need.min(most), reason);
        }
        if self.is_one_missing(need) && wanted < most {
            return self.up(wanted + 1, Reason::Replacing);
        }
        self.down(need)
    }

    fn up(&self, to: u32, reason: Reason) -> Step {
        let wanted = self.supply.wanted;
        if self.crash_looping {
            return Step::Blocked(Reason::CrashLooping);
        }
        if self.no_capacity {
            return Step::Blocked(Reason::NoCapacity);
        }
        if to <= wanted {
            return Step::Blocked(Reason::AtMaximum);
        }
        // From zero one first: many pods that wait for a node make many nodes.
        if self.supply.ready == 0 && !self.sure && reason != Reason::Replacing {
            return Step::Stay;
        }
        let doubles = to / 2 >= wanted && matches!(reason, Reason::MoreWork | Reason::Backlog);
        Step::To(to, if doubles { Reason::Burst } else { reason })
    }

    /// Pods that are needed do not come, and no other one that was asked for in their place is on its way.
    fn is_one_missing(&self, need: u32) -> bool {
        self.supply.overdue > 0 && self.supply.coming == 0 && self.supply.ready < need
    }

    fn down(&self, need: u32) -> Step {
        let Supply { wanted, ready, overdue, .. } = self.supply;
        let keeps = self.peak.max(need);
        // Those that do not come are none of those that are needed.
        let keeps = if ready < keeps { keeps.saturating_add(overdue) } else { keeps };
        let to = keeps.max(self.bounds.0).max(u32::from(!self.idle));
        if to >= wanted || self.stands {
            return Step::Stay;
        }
        if !self.measured {
            return Step::Blocked(Reason::Measuring);
        }
        Step::To(to, if to == 0 { Reason::Idle } else { Reason::LessWork })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three of at most ten, all ready, and all needed.
    const CALM: Situation = Situation {
        bounds: (0, 10),
        supply: Supply { wanted: 3, ready: 3, coming: 0, overdue: 0, head_start: 0., late: false },
        crash_looping: false,
        no_capacity: false,
        need: (3, Reason::MoreWork),
        peak: 3,
        wanted: false,
        stands: false,
        known: true,
        measured: true,
        sure: false,
        idle: false,
    };

    fn pods(wanted: u32, ready: u32, coming: u32, overdue: u32) -> Supply {
        Supply { wanted, ready, coming, overdue, head_start: 0., late: false }
    }

    fn need(need: u32) -> (u32, Reason) {
        (need, Reason::MoreWork)
    }

    #[test]
    fn at_once_up_and_never_above_the_maximum() {
        assert_eq!(CALM.step(), Step::Stay);
        assert_eq!(Situation { need: need(4), ..CALM }.step(), Step::To(4, Reason::MoreWork));
        assert_eq!(Situation { need: need(8), ..CALM }.step(), Step::To(8, Reason::Burst));
        assert_eq!(Situation { need: need(99), ..CALM }.step(), Step::To(10, Reason::Burst));
        let full = Situation { supply: pods(10, 10, 0, 0), need: need(99), ..CALM };
        assert_eq!(full.step(), Step::Blocked(Reason::AtMaximum));
    }

    #[test]
    fn down_to_the_peak_but_not_while_a_backlog_stands() {
        let less = Situation { need: need(1), peak: 2, ..CALM };
        assert_eq!(less.step(), Step::To(2, Reason::LessWork));
        assert_eq!(Situation { stands: true, ..less }.step(), Step::Stay);
        assert_eq!(Situation { known: false, ..less }.step(), Step::Blocked(Reason::LoadUnknown));
        assert_eq!(Situation { measured: false, ..less }.step(), Step::Blocked(Reason::Measuring));
    }

    #[test]
    fn the_last_one_goes_when_nobody_asked_for_long_enough() {
        let last = Situation { supply: pods(1, 1, 0, 0), need: need(0), peak: 0, ..CALM };
        assert_eq!(last.step(), Step::Stay);
        assert_eq!(Situation { idle: true, ..last }.step(), Step::To(0, Reason::Idle));
        assert_eq!(Situation { idle: true, bounds: (1, 10), ..last }.step(), Step::Stay);
    }

    #[test]
    fn from_zero_one_first() {
        let asleep = Situation { supply: pods(0, 0, 0, 0), need: need(0), ..CALM };
        assert_eq!(asleep.step(), Step::Stay);
        let wanted = Situation { wanted: true, known: false, ..asleep };
        assert_eq!(
            wanted.step(),
            Step::To(1, Reason::Activated),
            "who waits is known of though the load is not"
        );
        let starting = Situation { supply: pods(1, 0, 1, 0), need: need(5), ..CALM };
        assert_eq!(starting.step(), Step::Stay);
        assert_eq!(Situation { sure: true, ..starting }.step(), Step::To(5, Reason::Burst));
    }

    #[test]
    fn none_is_added_that_cannot_come() {
        let more = Situation { need: need(5), ..CALM };
        assert_eq!(Situation { crash_looping: true, ..more }.step(), Step::Blocked(Reason::CrashLooping));
        assert_eq!(Situation { no_capacity: true, ..more }.step(), Step::Blocked(Reason::NoCapacity));
    }

    #[test]
    fn one_that_does_not_come_is_replaced_once_and_goes_when_it_is() {
        let late = Situation { supply: pods(3, 2, 0, 1), ..CALM };
        assert_eq!(late.step(), Step::To(4, Reason::Replacing));
        assert_eq!(Situation { supply: pods(4, 2, 1, 1), ..late }.step(), Step::Stay);
        assert_eq!(Situation { supply: pods(4, 3, 0, 1), ..late }.step(), Step::To(3, Reason::LessWork));
        assert_eq!(Situation { supply: pods(4, 2, 0, 2), ..late }.step(), Step::To(5, Reason::Replacing));
    }

    #[test]
    fn bounds_are_kept_whatever_else_is_so() {
        let odd = Situation { known: false, stands: true, ..CALM };
        assert_eq!(Situation { bounds: (5, 10), ..odd }.step(), Step::To(5, Reason::Bounds));
        assert_eq!(Situation { bounds: (0, 2), ..odd }.step(), Step::To(2, Reason::Bounds));
        assert_eq!(Situation { bounds: (7, 2), ..odd }.step(), Step::To(7, Reason::Bounds));
    }
}
