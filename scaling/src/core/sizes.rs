//! How large requests are, and how much they differ.

/// Seconds after which what was seen counts a third.
const MEMORY: f64 = 600.;

/// The sizes of the requests of about the last ten minutes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    requests: f64,
    tokens: f64,
    squares: f64,
}

impl Sizes {
    /// These came in `over` seconds. Time in which nothing came teaches nothing.
    pub fn add(&mut self, over: f64, requests: f64, tokens: f64, squares: f64) {
        if requests <= 0. || tokens <= 0. {
            return;
        }
        let kept = (-over / MEMORY).exp();
        self.requests = self.requests * kept + requests;
        self.tokens = self.tokens * kept + tokens;
        // No sum of squares is smaller than if all were of one size.
        self.squares = self.squares * kept + squares.max(tokens * tokens / requests);
    }

    /// Tokens of a request, on average.
    pub fn mean(&self) -> f64 {
        if self.requests > 0. { self.tokens / self.requests } else { 1. }
    }

    /// Tokens of a request, on average over tokens: how lumpy the work comes.
    pub fn lump(&self) -> f64 {
        if self.tokens > 0. { self.squares / self.tokens } else { 1. }
    }

    /// The squared coefficient of variation.
    pub fn variation(&self) -> f64 {
        (self.lump() / self.mean() - 1.).clamp(0., 100.)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_by_their_sums() {
        let mut sizes = Sizes::default();
        assert_eq!((sizes.mean(), sizes.lump(), sizes.variation()), (1., 1., 0.));
        sizes.add(1., 2., 40., 1000.);
        assert_eq!((sizes.mean(), sizes.lump()), (20., 25.));
        assert!((sizes.variation() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn what_was_is_forgotten_and_what_cannot_be_is_not_believed() {
        let mut sizes = Sizes::default();
        sizes.add(1., 10., 100., 0.);
        assert_eq!(sizes.variation(), 0.);
        for _ in 0..6000 {
            sizes.add(1., 10., 1000., 100_000.);
        }
        assert!((sizes.mean() - 100.).abs() < 0.1);
    }
}
