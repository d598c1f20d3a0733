//! What the measured latency teaches.
//!
//! The formula and what was measured of a pod may be wrong: a node is slower than another, or its neighbours are noisy. Then more
//! answers are late than may be, though all pods that were asked for are there and nothing has piled up. What is late while pods
//! start, or while a backlog is drained, teaches nothing: more pods are on their way then. And what takes one request alone no
//! replica shortens.

/// Answers after which a share is judged.
const ENOUGH: f64 = 100.;

/// Seconds of a stretch after which it is.
const STRETCH: f64 = 15.;

/// How much more room each finding makes.
const STEP: f64 = 1.1;

/// The most that is corrected: who is off by more is not helped by replicas.
const MOST: f64 = 2.;

/// Seconds without any finding after which half of the correction is taken back.
const FORGOTTEN: f64 = 3600.;

/// How much more work the pods are to have room for than there is.
#[derive(Clone, Copy, Debug)]
pub struct Correction {
    factor: f64,
    counted: f64,
    late: f64,
    over: f64,
    clean: f64,
}

/// What was counted at a look.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Seconds.
    pub over: f64,
    /// Answers.
    pub counted: f64,
    /// Those that were late.
    pub late: f64,
    /// All pods that were asked for are there, and nothing has piled up.
    pub settled: bool,
    /// More replicas would shorten what requests take.
    pub can_help: bool,
}

impl Default for Correction {
    fn default() -> Self {
        Self { factor: 1., counted: 0., late: 0., over: 0., clean: 0. }
    }
}

impl Correction {
    /// Learns from a look; `allowed` is the share that may be late.
    pub fn learn(&mut self, look: Counted, allowed: f64) {
        self.clean += look.over;
        if self.clean >= FORGOTTEN {
            (self.factor, self.clean) = (1. + (self.factor - 1.) / 2., 0.);
        }
        if !look.settled {
            (self.counted, self.late, self.over) = (0., 0., 0.);
            return;
        }
        self.over += look.over;
        self.counted += look.counted;
        self.late += look.late;
        if self.over < STRETCH || self.counted < ENOUGH {
            return;
        }
        // Two standard errors above what is allowed is no chance.
        let error = (allowed * (1. - allowed) / self.counted).sqrt();
        if self.late / self.counted > allowed + 2. * error && look.can_help {
            (self.factor, self.clean) = ((self.factor * STEP).min(MOST), 0.);
        }
        (self.counted, self.late, self.over) = (0., 0., 0.);
    }

    /// How many times the work there is room for: 1 if nothing was found.
    pub fn factor(&self) -> f64 {
        self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Counted = Counted { over: 1., counted: 20., late: 4., settled: true, can_help: true };

    fn after(looks: usize, look: Counted) -> f64 {
        let mut correction = Correction::default();
        (0..looks).for_each(|_| correction.learn(look, 0.05));
        correction.factor()
    }

    #[test]
    fn too_many_late_answers_make_room_but_not_without_end() {
        assert_eq!(after(14, LATE), 1.);
        assert_eq!(after(15, LATE), STEP);
        assert_eq!(after(3000, LATE), MOST);
    }

    #[test]
    fn what_no_replica_shortens_or_is_on_its_way_teaches_nothing() {
        assert_eq!(after(500, Counted { settled: false, ..LATE }), 1.);
        assert_eq!(after(500, Counted { can_help: false, ..LATE }), 1.);
        assert_eq!(after(500, Counted { late: 1., ..LATE }), 1., "as many as may be");
    }

    #[test]
    fn it_is_taken_back_slowly() {
        let mut correction = Correction::default();
        (0..15).for_each(|_| correction.learn(LATE, 0.05));
        (0..3601).for_each(|_| correction.learn(Counted { late: 0., ..LATE }, 0.05));
        assert!((correction.factor() - 1.05).abs() < 1e-9);
    }
}
