//! Numbers that look random and are the same for the same seed, on every machine and for ever.

use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea, Flood 2014): eight bytes of state, and no two seeds give related sequences.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly in (0, 1): never quite either, so that its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Evenly in `from..to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Exponential with that mean: the gap to the next of events that know nothing of each other.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Normal with mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2. * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    /// Lognormal with that mean, `spread` being the standard deviation of its logarithm.
    pub fn lognormal(&mut self, mean: f64, spread: f64) -> f64 {
        mean * (spread * self.normal() - spread * spread / 2.).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(draw: impl FnMut() -> f64) -> f64 {
        std::iter::repeat_with(draw).take(200_000).sum::<f64>() / 200_000.
    }

    #[test]
    fn a_seed_names_a_sequence() {
        // The first of the reference implementation for seed 0.
        assert_eq!(Random::new(0).bits(), 0xE220_A839_7B1D_CDAF);
        assert_ne!(Random::new(1).bits(), Random::new(2).bits());
    }

    #[test]
    fn the_means_are_as_asked_for() {
        let mut random = Random::new(7);
        assert!((mean(|| random.unit()) - 0.5).abs() < 0.005);
        assert!((mean(|| random.exponential(3.)) - 3.).abs() < 0.03);
        assert!((mean(|| random.lognormal(3., 0.8)) - 3.).abs() < 0.03);
        assert!(mean(|| random.normal()).abs() < 0.01);
        assert!((mean(|| random.normal().powi(2)) - 1.).abs() < 0.02);
    }
}
