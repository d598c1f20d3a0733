//! The one way of a request: checked, tokenised, queued, run, finished. Every API is a way in to here.

use std::{sync::Arc, time::Instant};

use kembed_queue::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    batch::{Batcher, SubmitError},
    limits::Limits,
    metrics::Metrics,
    model::{Recipe, prompts::InputType},
    tokenise::{TokeniseError, Tokeniser},
    vector,
};

/// One text to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Words, which are tokenised.
    Text(String),
    /// Token ids, which are taken as they are.
    Tokens(Vec<u32>),
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to embed.
    pub inputs: Vec<Input>,
    /// What the inputs are.
    pub input_type: InputType,
    /// Numbers to keep of each vector.
    pub dimensions: Option<usize>,
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

/// What it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One for each input, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that counted, special ones included.
    pub tokens: usize,
}

/// Why it gets none. No message holds any of the input.
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
    /// A number of dimensions that a vector cannot be cut to.
    #[error("a vector of this model can be cut to 1 to {limit} dimensions, not to {asked}")]
    Dimensions {
        /// Asked for.
        asked: usize,
        /// How many a whole vector has.
        limit: usize,
    },
    /// A text that the tokenizer cannot take.
    #[error(transparent)]
    Tokenise(#[from] TokeniseError),
    /// As many requests as the pod takes on are in hand.
    #[error("the pod has {0} requests in hand already")]
    Busy(usize),
    /// There is no room in the queue.
    #[error(transparent)]
    Refused(Refusal),
    /// It did not come in time.
    #[error("the answer was not ready in time")]
    TooLate,
    /// The pod is going down.
    #[error("the pod is stopping")]
    Stopped,
    /// The network failed.
    #[error("the network failed")]
    Failed,
}

impl From<SubmitError> for EmbedError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => Self::Refused(refusal),
            SubmitError::Stopped => Self::Stopped,
        }
    }
}

/// A model that is ready to serve.
pub struct Engine {
    recipe: Arc<Recipe>,
    tokeniser: Arc<Tokeniser>,
    batcher: Batcher,
    dimension: usize,
    limits: Limits,
    metrics: Metrics,
    in_hand: Arc<Semaphore>,
    tokenising: Arc<Semaphore>,
}

impl Engine {
    /// Puts the parts together. `dimension` is that of a whole vector.
    pub fn new(
        recipe: Recipe,
        tokeniser: Tokeniser,
        batcher: Batcher,
        dimension: usize,
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        Self {
            recipe: Arc::new(recipe),
            tokeniser: Arc::new(tokeniser),
            batcher,
            dimension,
            limits,
            metrics,
            in_hand: Arc::new(Semaphore::new(limits.requests)),
            tokenising: Arc::new(Semaphore::new(limits.tokenisers)),
        }
    }

    /// Takes a request in hand, before its body is read. It counts until the permit is dropped.
    ///
    /// # Errors
    /// If there are as many already as the pod takes on.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, EmbedError> {
        self.in_hand.clone().try_acquire_owned().map_err(|_| EmbedError::Busy(self.limits.requests))
    }

    /// Embeds. Dropping the future cancels what has not started.
    ///
    /// # Errors
    /// If the request is at fault, or the pod has no room or fails.
    pub async fn embed(&self, request: Request) -> Result<Embeddings, EmbedError> {
        let deadline = Instant::now() + self.limits.timeout;
        let Request { inputs, input_type, dimensions } = request;
        self.check(&inputs, dimensions)?;
        let inputs = self.tokenise(inputs, input_type).await?;
        let tokens = inputs.iter().map(Vec::len).sum();
        let vectors = self.batcher.submit(inputs, deadline, Instant::now())?;
        // The sender is dropped unused when the deadline passed, or when the thread ended.
        let vectors = vectors.await.map_err(|_| {
            if Instant::now() >= deadline { EmbedError::TooLate } else { EmbedError::Stopped }
        })?;
        let vectors = vectors.map_err(|_| EmbedError::Failed)?;
        if !vectors.iter().flatten().all(|x| x.is_finite()) {
            tracing::error!("the network gave vectors that are not finite");
            return Err(EmbedError::Failed);
        }
        let finish = |vector| vector::finish(vector, dimensions, self.recipe.normalize);
        Ok(Embeddings { vectors: vectors.into_iter().map(finish).collect(), tokens })
    }

    fn check(&self, inputs: &[Input], dimensions: Option<usize>) -> Result<(), EmbedError> {
        if inputs.is_empty() {
            return Err(EmbedError::NoInput);
        }
        if inputs.len() > self.limits.inputs {
            return Err(EmbedError::TooMany { inputs: inputs.len(), limit: self.limits.inputs });
        }
        if let Some(asked) = dimensions.filter(|asked| !(1..=self.dimension).contains(asked)) {
            return Err(EmbedError::Dimensions { asked, limit: self.dimension });
        }
        inputs.iter().enumerate().try_for_each(|(i, input)| self.check_input(i, input))
    }

    fn check_input(&self, i: usize, input: &Input) -> Result<(), EmbedError> {
        let (limit, vocabulary) = (self.recipe.max_tokens, self.recipe.config.vocab_size);
        let ids = match input {
            Input::Text(_) => return Ok(()),
            Input::Tokens(ids) if ids.is_empty() => return Err(EmbedError::Empty(i)),
            Input::Tokens(ids) => ids,
        };
        if ids.len() > limit {
            return Err(EmbedError::TooLong { input: i, tokens: ids.len(), limit });
        }
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(&id) => Err(EmbedError::UnknownToken { input: i, id, vocabulary }),
            None => Ok(()),
        }
    }

    async fn tokenise(&self, inputs: Vec<Input>, input_type: InputType) -> Result<Vec<Vec<u32>>, EmbedError> {
        let permit = self.tokenising.clone().acquire_owned().await.map_err(|_| EmbedError::Stopped)?;
        let (recipe, tokeniser, metrics) =
            (self.recipe.clone(), self.tokeniser.clone(), self.metrics.clone());
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let start = Instant::now();
            let prompt = recipe.prompts.before(input_type);
            let ids = inputs.into_iter().map(|input| match input {
                Input::Tokens(ids) => Ok(ids),
                Input::Text(text) => tokeniser.ids(prompt, &text),
            });
            let known = |ids: &Vec<u32>| ids.iter().all(|&id| (id as usize) < recipe.config.vocab_size);
            // A tokenizer can know more tokens than the network; one of them would fail the whole batch.
            let ids: Result<Vec<_>, _> =
                ids.map(|ids| ids.and_then(|ids| known(&ids).then_some(ids).ok_or(TokeniseError))).collect();
            metrics.tokenise.observe(start.elapsed().as_secs_f64());
            ids
        });
        // The only ways to fail are a panic inside the tokenizer and the end of the runtime.
        Ok(work.await.map_err(|_| EmbedError::Tokenise(TokeniseError))??)
    }
}
