//! What a client asks for, on which terms, and what it gets.

use std::time::Instant;

use kembed_queue::wire::Lane;

use super::EmbedError;
use crate::{model::prompts::InputType, tokenise::Cut};

/// One text to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Words, which are tokenised.
    Text(String),
    /// Token ids, which are taken as they are.
    Tokens(Vec<u32>),
}

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What to embed.
    pub inputs: Vec<Input>,
    /// What the inputs are.
    pub input_type: InputType,
    /// The prompt before each text, whatever the inputs are.
    pub prompt_name: Option<String>,
    /// What becomes of a text that is too long.
    pub cut: Cut,
    /// Numbers to keep of each vector.
    pub dimensions: Option<usize>,
    /// Whether vectors are brought to length one; else as the model has it.
    pub normalize: Option<bool>,
}

impl Input {
    /// Bytes to tokenise.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tokens(_) => 0,
        }
    }
}

impl Request {
    /// Refuses empty texts. A model has a vector for them, but a client that sends one has lost its text on the way:
    /// APIs that say so use this.
    ///
    /// # Errors
    /// If there is an empty text.
    pub fn without_empty_texts(self) -> Result<Self, EmbedError> {
        let is_empty = |input: &Input| matches!(input, Input::Text(text) if text.is_empty());
        match self.inputs.iter().position(is_empty) {
            Some(i) => Err(EmbedError::Empty(i)),
            None => Ok(self),
        }
    }
}

/// What a client says beside its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Who goes first.
    pub lane: Lane,
    /// When nobody waits for the answer any more. The pod's own limit holds in any case.
    pub deadline: Option<Instant>,
}

impl From<Lane> for Terms {
    fn from(lane: Lane) -> Self {
        Self { lane, deadline: None }
    }
}

/// What it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One for each input, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that counted, special ones included.
    pub tokens: usize,
}
