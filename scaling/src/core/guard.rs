//! How sure one must be to take a pod away.
//!
//! Work that is steady at the border between two counts seems now a little less, now a little more. Whoever lowered the count
//! and had to raise it again, though no more work came than when he lowered it, was wrong, and is more careful from then on.

/// Standard errors that are added to the measured rate before a pod is taken away.
const LEAST: f64 = 1.;

/// See [`LEAST`].
const MOST: f64 = 8.;

/// What each mistake adds.
const STEP: f64 = 1.5;

/// Seconds within which a count that is raised again was a mistake to lower.
const REGRET: f64 = 900.;

/// Seconds without a mistake after which one step is taken back.
const FORGOTTEN: f64 = 7200.;

/// Remembers what was lowered.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    errors: f64,
    lowered: Option<(f64, f64)>,
    since: f64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { errors: LEAST, lowered: None, since: 0. }
    }
}

impl Guard {
    /// Standard errors to add.
    pub fn errors(&self) -> f64 {
        self.errors
    }

    /// The count was lowered while so many tokens a second came.
    pub fn lowered(&mut self, now: f64, rate: f64) {
        self.lowered = Some((now, rate));
    }

    /// The count was raised while so many tokens a second came, give or take `error`.
    pub fn raised(&mut self, now: f64, rate: f64, error: f64) {
        if let Some((when, before)) = self.lowered.take()
            && now - when < REGRET
            && rate <= before + 4. * error
        {
            (self.errors, self.since) = ((self.errors + STEP).min(MOST), now);
        }
    }

    /// Time passes.
    pub fn pass(&mut self, now: f64) {
        if now - self.since >= FORGOTTEN {
            (self.errors, self.since) = ((self.errors - STEP).max(LEAST), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_wrong_is_more_careful() {
        let mut guard = Guard::default();
        guard.lowered(10., 100.);
        guard.raised(60., 105., 5.);
        assert_eq!(guard.errors(), LEAST + STEP);
        guard.raised(70., 105., 5.);
        assert_eq!(guard.errors(), LEAST + STEP, "once for each mistake");
        guard.pass(7300.);
        assert_eq!(guard.errors(), LEAST);
    }

    #[test]
    fn what_changed_meanwhile_is_nobodys_mistake() {
        let mut guard = Guard::default();
        guard.lowered(10., 100.);
        guard.raised(60., 200., 5.);
        guard.lowered(100., 100.);
        guard.raised(1100., 100., 5.);
        assert_eq!(guard.errors(), LEAST);
    }
}
