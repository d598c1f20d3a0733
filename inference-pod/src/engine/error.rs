//! Why a request is not answered with what was asked for.

use crate::{batch::SubmitError, in_hand::Busy, tokenise::TokeniseError};

/// Why a client gets no vectors. No message holds any of the input.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EmbedError {
    /// There is nothing to embed.
    #[error("there is no input")]
    NoInput,
    /// An input has nothing in it.
    #[error("input {0} is empty")]
    Empty(usize),
    /// There are more inputs than one request may have.
    #[error("{inputs} inputs are more than the {limit} that one request may have")]
    TooMany {
        /// How many there are.
        inputs: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A token id that the model does not know.
    #[error("input {input} has token id {id}, and this model's ids are smaller than {vocabulary}")]
    UnknownToken {
        /// Which input.
        input: usize,
        /// Which id.
        id: u32,
        /// Ids there are.
        vocabulary: usize,
    },
    /// More token ids than the model can take.
    #[error("input {input} has {tokens} tokens, and this model takes {limit}")]
    TooLong {
        /// Which input.
        input: usize,
        /// How many it has.
        tokens: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A prompt that the model does not have.
    #[error("this model has no prompt of that name, but {known}")]
    UnknownPrompt {
        /// The names that it has.
        known: String,
    },
    /// A number of dimensions that a vector cannot be cut to.
    #[error("a vector of this model can be cut to 1 to {limit} dimensions, not to {asked}")]
    Dimensions {
        /// Asked for.
        asked: usize,
        /// How many a whole vector has.
        limit: usize,
    },
    /// More tokens than one answer may have the vectors of.
    #[error("the inputs have {tokens} tokens, and one answer holds the vectors of {limit} at most")]
    TooManyTokens {
        /// How many there are.
        tokens: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The model does not do what was asked for.
    #[error("model is not {0} model")]
    OtherModel(&'static str),
    /// A text that the tokenizer cannot take.
    #[error(transparent)]
    Tokenise(#[from] TokeniseError),
    /// The pod has as much in hand as it takes on.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It was not queued, or the pod is going down.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It did not come in time.
    #[error("the answer was not ready in time")]
    TooLate,
    /// The network failed.
    #[error("the network failed")]
    Failed,
}

impl EmbedError {
    /// The pod is going down.
    pub(super) const STOPPED: Self = Self::Submit(SubmitError::Stopped);
}
