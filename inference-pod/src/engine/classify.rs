//! Of texts, alone or in pairs, what a model that classifies says.

use std::time::Instant;

use super::{EmbedError, Engine, Terms, WRITTEN, tokenising::is_short};
use crate::{
    batch::row::Row,
    in_hand::Held,
    tokenise::{Cut, TokeniseError, Tokeniser},
};

/// Bytes of an answer around a number: what it is for, and its name in JSON.
const AROUND: usize = 64;

/// Bytes of a token on its way to the network: an id and a type.
const TOKEN: usize = 8;

/// What is to be classified.
#[derive(Clone, Debug)]
pub enum Texts {
    /// Each of these, by all labels.
    Each(Vec<Sequence>),
    /// Each of these texts together with a query, which comes first. It is for models that have one label: how well the
    /// two go together.
    Against {
        /// The query.
        query: String,
        /// The texts.
        texts: Vec<String>,
    },
}

/// One input of a model that classifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// A text.
    One(String),
    /// Two texts, as the model was trained for.
    Pair(String, String),
}

/// What a client wants to be classified.
#[derive(Clone, Debug)]
pub struct Classify {
    /// The inputs.
    pub texts: Texts,
    /// What becomes of one that is too long.
    pub cut: Cut,
}

impl Texts {
    fn count(&self) -> usize {
        match self {
            Self::Each(sequences) => sequences.len(),
            Self::Against { texts, .. } => texts.len(),
        }
    }

    /// Bytes of each input.
    fn sizes(&self) -> Vec<usize> {
        match self {
            Self::Each(sequences) => sequences.iter().map(Sequence::size).collect(),
            Self::Against { query, texts } => texts.iter().map(|text| query.len() + text.len()).collect(),
        }
    }

    fn rows(&self, tokeniser: &Tokeniser, cut: Cut) -> Result<Vec<Row>, TokeniseError> {
        let typed = |(ids, types)| Row::typed(ids, types);
        match self {
            Self::Each(sequences) => {
                let rows = sequences.iter().map(|sequence| match sequence {
                    Sequence::One(text) => tokeniser.ids_cut("", text, cut).map(Row::new),
                    Sequence::Pair(first, second) => {
                        tokeniser.pairs(first, cut).and_then(|pairs| pairs.with(second)).map(typed)
                    }
                });
                rows.collect()
            }
            Self::Against { query, texts } => {
                let pairs = tokeniser.pairs(query, cut)?;
                texts.iter().map(|text| pairs.with(text).map(typed)).collect()
            }
        }
    }
}

impl Sequence {
    fn size(&self) -> usize {
        match self {
            Self::One(text) => text.len(),
            Self::Pair(first, second) => first.len() + second.len(),
        }
    }
}

impl Engine {
    /// The names of the numbers that the model gives of a text, in order. A model that gives vectors has none.
    pub fn labels(&self) -> Option<&[String]> {
        self.recipe.labels.as_deref()
    }

    /// Makes room for what comes of a request in hand: a query is short and stands before each of many texts.
    ///
    /// # Errors
    /// If there is none now.
    pub fn make_room_to_classify(&self, held: &mut Held, request: &Classify) -> Result<(), EmbedError> {
        let labels = self.labels().unwrap_or_default();
        let answer: usize = labels.iter().map(|label| label.len() + WRITTEN + AROUND).sum();
        // Hardly ever has a text more tokens than bytes.
        let tokens = request.texts.sizes().into_iter().map(|size| size.min(self.recipe.max_tokens));
        let bytes: usize = tokens.map(|tokens| tokens * TOKEN + answer).sum();
        Ok(held.grow(bytes)?)
    }

    /// A number for each label of each input, as the network gives them. Dropping the future cancels what has not
    /// started.
    ///
    /// # Errors
    /// If the model does not do this, the request is at fault, or the pod has no room or fails.
    pub async fn classify_in(
        &self,
        terms: impl Into<Terms>,
        held: &mut Held,
        request: Classify,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let limits = self.bounded(terms.into());
        let Classify { texts, cut } = request;
        match (&texts, self.labels().map(<[_]>::len)) {
            (Texts::Each(_), Some(_)) | (Texts::Against { .. }, Some(1)) => {}
            (Texts::Each(_), None) => return Err(EmbedError::OtherModel("a classifier")),
            (Texts::Against { .. }, _) => return Err(EmbedError::OtherModel("a re-ranker")),
        }
        self.check_count(texts.count())?;
        let sizes = texts.sizes();
        if let Some(empty) = sizes.iter().position(|&size| size == 0) {
            return Err(EmbedError::Empty(empty));
        }
        let is_short = is_short(sizes.into_iter(), cut);
        let start = Instant::now();
        let rows = self.tokenise(is_short, move |tokeniser| texts.rows(tokeniser, cut)).await?;
        held.effort.tokenise = start.elapsed();
        self.run(self.known(rows)?, limits, &mut held.effort).await
    }
}
