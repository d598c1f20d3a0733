//! The one way of a request: checked, tokenised, queued, run, finished. Every API is a way in to here.

mod classify;
mod error;
mod every_token;
mod request;
mod tokenising;

use std::{sync::Arc, time::Instant};

use kembed_queue::{credit::PodLoad, wire::Lane};
use kembed_runtime::traces::Span;
use tokio::sync::Semaphore;

use self::tokenising::is_short;
pub use self::{
    classify::{Classify, Sequence, Texts},
    error::EmbedError,
    every_token::TokenVectors,
    request::{Embeddings, Input, Request, Terms},
};
use crate::{
    backend::RunError,
    batch::{Batcher, Ran, row::Row},
    effort::Effort,
    in_hand::{Held, InHand},
    limits::Limits,
    metrics::Metrics,
    model::{Numbers, Recipe, prompts::InputType},
    pooling::Pooling,
    tokenise::{Token, TokeniseError, Tokeniser},
    vector,
};

/// Bytes that a number of a vector takes: four, and up to twelve when it is written.
const WRITTEN: usize = 16;

/// A model that is ready to serve.
pub struct Engine {
    recipe: Arc<Recipe>,
    tokeniser: Arc<Tokeniser>,
    batcher: Batcher,
    dimension: usize,
    limits: Limits,
    metrics: Metrics,
    in_hand: InHand,
    tokenising: Arc<Semaphore>,
    gives_tokens: bool,
    numbers: Numbers,
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
            numbers: recipe.precision.into(),
            recipe: Arc::new(recipe),
            tokeniser: Arc::new(tokeniser),
            batcher,
            dimension,
            limits,
            metrics,
            in_hand: InHand::new(limits.requests, limits.bytes),
            tokenising: Arc::new(Semaphore::new(limits.tokenisers)),
            gives_tokens: true,
        }
    }

    /// The same, for a network that pools by itself: the vectors of tokens are not to be had.
    pub fn without_tokens(self) -> Self {
        Self { gives_tokens: false, ..self }
    }

    /// The same, for a network that is of other numbers than were asked for.
    pub fn of_numbers(self, numbers: Numbers) -> Self {
        Self { numbers, ..self }
    }

    /// What it takes on.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Takes a request in hand, before its body is read.
    ///
    /// # Errors
    /// If there are as many already as the pod takes on.
    pub fn admit(&self) -> Result<Held, EmbedError> {
        Ok(self.in_hand.take()?)
    }

    /// Whether a gateway that keeps count may send more of this lane. It counts by estimates, and another one may do so
    /// too while a service changes hands: so twice the credit is taken before it is refused.
    pub fn has_credit(&self, lane: Lane) -> bool {
        self.batcher.in_hand(lane) < 2 * self.limits.credit()
    }

    /// What such a gateway is told, without the work of a request.
    pub fn load(&self) -> PodLoad {
        PodLoad {
            credit: self.limits.credit(),
            work: 0,
            rate: self.batcher.rate(),
            sessions: self.limits.threads as u64,
        }
    }

    /// Makes room for the answer to a request in hand.
    ///
    /// # Errors
    /// If there is none now.
    pub fn make_room(&self, held: &mut Held, request: &Request) -> Result<(), EmbedError> {
        Ok(held.grow(request.inputs.len().saturating_mul(self.dimension * WRITTEN))?)
    }

    /// Embeds, before what is bulk. Dropping the future cancels what has not started.
    ///
    /// # Errors
    /// If the request is at fault, or the pod has no room or fails.
    pub async fn embed(&self, request: Request) -> Result<Embeddings, EmbedError> {
        self.embed_in(Lane::Interactive, &mut self.admit()?, request).await
    }

    /// As [`Engine::embed`], on the client's terms.
    ///
    /// # Errors
    /// As there.
    pub async fn embed_in(
        &self,
        terms: impl Into<Terms>,
        held: &mut Held,
        request: Request,
    ) -> Result<Embeddings, EmbedError> {
        let limits = self.bounded(terms.into());
        let (dimensions, normalize) = (request.dimensions, request.normalize);
        let rows = self.rows(request, &mut held.effort).await?;
        let vectors = self.run(rows, limits, &mut held.effort).await?;
        let normalize = normalize.unwrap_or(self.recipe.normalize);
        let finish = |vector| vector::finish(vector, dimensions, normalize);
        Ok(Embeddings { vectors: vectors.into_iter().map(finish).collect(), tokens: held.effort.tokens })
    }

    /// What the network is given of a request to embed.
    async fn rows(&self, request: Request, effort: &mut Effort) -> Result<Vec<Row>, EmbedError> {
        if self.recipe.labels.is_some() {
            return Err(EmbedError::OtherModel("an embedding"));
        }
        let Request { inputs, input_type, prompt_name, cut, dimensions, .. } = request;
        self.check(&inputs, dimensions)?;
        let prompt = self.prompt(input_type, prompt_name.as_deref())?;
        let is_short = is_short(inputs.iter().map(|input| prompt.len() + input.size()), cut);
        let tokenise = move |tokeniser: &Tokeniser| {
            let ids = inputs.into_iter().map(|input| match input {
                Input::Tokens(ids) => Ok(ids),
                Input::Text(text) => tokeniser.ids_cut(&prompt, &text, cut),
            });
            ids.map(|ids| ids.map(Row::new)).collect()
        };
        let (start, rows) = (Instant::now(), self.tokenise(is_short, tokenise).await?);
        effort.tokenise = start.elapsed();
        self.known(rows)
    }

    /// Refuses what would fail a whole batch: nothing at all, and what a tokenizer knows and the network does not.
    fn known(&self, rows: Vec<Row>) -> Result<Vec<Row>, EmbedError> {
        if let Some(empty) = rows.iter().position(|row| row.ids.is_empty()) {
            return Err(EmbedError::Empty(empty));
        }
        let vocabulary = self.recipe.config.vocab_size;
        let known = rows.iter().flat_map(|row| &row.ids).all(|&id| (id as usize) < vocabulary);
        known.then_some(rows).ok_or(EmbedError::Tokenise(TokeniseError::Text))
    }

    /// The lane of a request that comes now, and when it must be answered.
    fn bounded(&self, terms: Terms) -> (Lane, Instant) {
        let latest = Instant::now() + self.limits.timeout;
        (terms.lane, terms.deadline.map_or(latest, |deadline| deadline.min(latest)))
    }

    /// What the network gives for each row.
    async fn run(
        &self,
        rows: Vec<Row>,
        (lane, deadline): (Lane, Instant),
        effort: &mut Effort,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        effort.tokens = rows.iter().map(|row| row.ids.len()).sum();
        let ran = self.batcher.submit(rows, lane, deadline, Instant::now(), Span::current())?;
        let _waits = self.metrics.waits(lane);
        // The sender is dropped unused when the deadline passed, or when the thread ended.
        let ran = ran.await.map_err(|_| {
            if Instant::now() >= deadline { EmbedError::TooLate } else { EmbedError::STOPPED }
        })?;
        let Ran { vectors, queue, run } = ran.map_err(|error| match error {
            RunError::Failed(_) | RunError::OutOfMemory(_) => EmbedError::Failed,
            // Another pod can answer.
            RunError::Lost(_) => EmbedError::STOPPED,
        })?;
        (effort.queue, effort.run) = (queue, run);
        if !vectors.iter().flatten().all(|x| x.is_finite()) {
            tracing::error!("the network gave vectors that are not finite");
            return Err(EmbedError::Failed);
        }
        Ok(vectors)
    }

    /// How the vectors of an input's tokens become one.
    pub fn pooling(&self) -> Pooling {
        self.recipe.pooling
    }

    /// What the network's products are made of.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The tokens of each text.
    ///
    /// # Errors
    /// If there are too many texts, the model has no such prompt, or the tokenizer cannot take a text.
    pub async fn tokens(
        &self,
        texts: Vec<String>,
        prompt_name: Option<&str>,
        special: bool,
    ) -> Result<Vec<Vec<Token>>, EmbedError> {
        self.check_count(texts.len())?;
        let prompt = self.prompt(InputType::Unsaid, prompt_name)?;
        self.blocking(move |tokeniser| {
            texts.into_iter().map(|text| tokeniser.tokens(&prompt, &text, special)).collect()
        })
        .await
    }

    /// The text of each list of token ids.
    ///
    /// # Errors
    /// If there are too many lists, or the tokenizer cannot read one.
    pub async fn texts(&self, lists: Vec<Vec<u32>>, skip_special: bool) -> Result<Vec<String>, EmbedError> {
        self.check_count(lists.len())?;
        self.blocking(move |tokeniser| lists.iter().map(|ids| tokeniser.text(ids, skip_special)).collect())
            .await
    }

    fn prompt(&self, input_type: InputType, name: Option<&str>) -> Result<String, EmbedError> {
        let prompts = &self.recipe.prompts;
        let prompt = match name {
            Some(name) => {
                prompts.of_name(name).ok_or_else(|| EmbedError::UnknownPrompt { known: prompts.names() })?
            }
            None => prompts.before(input_type),
        };
        Ok(prompt.to_owned())
    }

    fn check_count(&self, inputs: usize) -> Result<(), EmbedError> {
        match inputs {
            0 => Err(EmbedError::NoInput),
            _ if inputs > self.limits.inputs => {
                Err(EmbedError::TooMany { inputs, limit: self.limits.inputs })
            }
            _ => Ok(()),
        }
    }

    fn check(&self, inputs: &[Input], dimensions: Option<usize>) -> Result<(), EmbedError> {
        self.check_count(inputs.len())?;
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
}
