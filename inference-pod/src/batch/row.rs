//! One input as the network takes it.

/// An input's tokens, and what is wanted of them. Of rows that are equal and in hand at the same time one is run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Token ids, which are not none.
    pub ids: Vec<u32>,
    /// The type of each token: which text of a pair it belongs to. Empty where all are of the first.
    pub types: Vec<u32>,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What is wanted of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// One vector: pooled, or with a number for each label.
    One,
    /// The vectors of all its tokens, one after the other.
    Tokens,
}

impl Row {
    /// One vector is wanted of a text alone.
    pub fn new(ids: Vec<u32>) -> Self {
        Self { ids, types: Vec::new(), wanted: Wanted::One }
    }

    /// One vector is wanted of tokens of these types.
    pub fn typed(ids: Vec<u32>, types: Vec<u32>) -> Self {
        let types = if types.iter().all(|&kind| kind == 0) { Vec::new() } else { types };
        Self { types, ..Self::new(ids) }
    }
}
