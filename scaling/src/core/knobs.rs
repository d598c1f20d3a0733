//! What may be tuned.

use std::fmt;

/// What may be tuned. The default is one for all services; each service's is then tuned from there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knobs {
    /// Which work the count is made for.
    pub expect: Expect,
    /// How much more than that: work is taken for so many times what it is.
    pub factor: f64,
    /// For how many seconds what was needed stays.
    pub hold: f64,
    /// Whether pods are asked for to drain what waits.
    pub drains: bool,
    /// The fewest pods while the service is awake.
    pub standing: u32,
    /// The last pod stays for as many times as long as a pod takes to start, even if the user would let it go sooner.
    pub idle: f64,
}

/// Which work a count is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// What arrives now.
    Present,
    /// What came, when a pod asked for would have been there, after moments of the past hour like this: the most of it in
    /// this share of the cases.
    Quantile(f64),
}

impl Default for Knobs {
    fn default() -> Self {
        Self { expect: Expect::Quantile(0.8), factor: 1., hold: 30., drains: true, standing: 1, idle: 2. }
    }
}

impl fmt::Display for Knobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expect {
            Expect::Present => write!(f, "for what arrives")?,
            Expect::Quantile(share) => write!(f, "for what comes in {:.0} % of cases", share * 100.)?,
        }
        write!(f, ", times {}, held for {} s, at least {}", self.factor, self.hold, self.standing)?;
        if self.drains { write!(f, ", draining") } else { write!(f, ", not draining") }
    }
}
