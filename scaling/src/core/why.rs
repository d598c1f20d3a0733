//! Which reason is told.
//!
//! A reason is written to the status of the service, so it may not change with every look: it changes with the count, and with
//! something that is in the way only if that lasts.

use super::count::Step;
use crate::decision::Reason;

/// Seconds after which it is told what is in the way, or that it no longer is.
const LASTS: f64 = 15.;

/// The reason that is told.
#[derive(Clone, Copy, Debug)]
pub struct Why {
    /// Why the count is what it is.
    count: Reason,
    /// What is in the way, and is told.
    told: Option<Reason>,
    /// What seems to be so instead, and since when.
    seems: Option<(Option<Reason>, f64)>,
}

impl Default for Why {
    fn default() -> Self {
        Self { count: Reason::Steady, told: None, seems: None }
    }
}

impl Why {
    /// The reason to tell at `now`, in seconds.
    pub fn tell(&mut self, step: Step, now: f64) -> Reason {
        let in_the_way = match step {
            Step::To(_, reason) => {
                debug_assert!(reason.changes_the_count(), "{reason:?}");
                *self = Self { count: reason, told: None, seems: None };
                return reason;
            }
            Step::Stay => None,
            Step::Blocked(reason) => {
                debug_assert!(reason.stands_in_the_way(), "{reason:?}");
                Some(reason)
            }
        };
        self.seems = self.seems.filter(|(seems, _)| in_the_way != self.told && *seems == in_the_way);
        if in_the_way != self.told {
            let (_, since) = *self.seems.get_or_insert((in_the_way, now));
            if now - since >= LASTS {
                (self.told, self.seems) = (in_the_way, None);
            }
        }
        self.told.unwrap_or(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_with_the_count() {
        let mut why = Why::default();
        assert_eq!(why.tell(Step::Stay, 0.), Reason::Steady);
        assert_eq!(why.tell(Step::To(3, Reason::Backlog), 1.), Reason::Backlog);
        assert_eq!(why.tell(Step::Stay, 2.), Reason::Backlog);
    }

    #[test]
    fn what_is_in_the_way_is_told_once_it_lasts_and_so_is_that_it_no_longer_is() {
        let mut why = Why::default();
        let told: Vec<Reason> = (0..60)
            .map(|now| {
                let blocked = now % 2 == 0 && now < 20 || (20..36).contains(&now);
                let step = if blocked { Step::Blocked(Reason::NoCapacity) } else { Step::Stay };
                why.tell(step, f64::from(now))
            })
            .collect();
        assert_eq!(told.iter().position(|&reason| reason == Reason::NoCapacity), Some(35));
        assert_eq!(told.iter().rposition(|&reason| reason == Reason::NoCapacity), Some(50));
    }
}
