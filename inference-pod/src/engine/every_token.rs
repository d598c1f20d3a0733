//! The vectors of all tokens, not pooled. They are many, and so is what they take.

use serde::{Serialize, Serializer};

use super::{EmbedError, Engine, Request, Terms, WRITTEN};
use crate::{
    batch::row::{Row, Wanted},
    in_hand::Held,
    model::dense::Dense,
};

/// The part of what the pod may have in hand that one answer may take.
const PART: usize = 4;

/// The vectors of one input's tokens, written as a list of lists.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenVectors {
    /// One after the other.
    numbers: Vec<f32>,
    /// Numbers of each.
    dimension: usize,
}

impl TokenVectors {
    /// One for each token, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks(self.dimension.max(1))
    }
}

impl Serialize for TokenVectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Engine {
    /// The vectors of all tokens of each input, special ones included, as the network gives them: before pooling, what
    /// is done to a pooled vector, and normalisation. Makes room for them once it is known how many they are.
    ///
    /// # Errors
    /// As [`Engine::embed`], or if they are more than one answer may hold.
    pub async fn embed_every_token_in(
        &self,
        terms: impl Into<Terms>,
        held: &mut Held,
        request: Request,
    ) -> Result<Vec<TokenVectors>, EmbedError> {
        if !self.gives_tokens {
            return Err(EmbedError::OtherModel("an unpooled"));
        }
        let limits = self.bounded(terms.into());
        let rows = self.rows(request, &mut held.effort).await?;
        let lengths: Vec<_> = rows.iter().map(|row| row.ids.len()).collect();
        // Dense layers come after pooling.
        let dimension = self.recipe.dense.first().map_or(self.dimension, Dense::takes);
        let (tokens, of_one) = (lengths.iter().sum(), dimension * WRITTEN);
        let limit = self.limits.bytes / PART / of_one.max(1);
        if tokens > limit {
            return Err(EmbedError::TooManyTokens { tokens, limit });
        }
        held.grow(tokens * of_one)?;
        let rows = rows.into_iter().map(|row| Row { wanted: Wanted::Tokens, ..row }).collect();
        let vectors = self.run(rows, limits, &mut held.effort).await?;
        let of_input = |(numbers, length): (Vec<f32>, usize)| {
            let dimension = numbers.len() / length;
            TokenVectors { numbers, dimension }
        };
        Ok(vectors.into_iter().zip(lengths).map(of_input).collect())
    }
}
