//! On which thread texts are tokenised.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kembed_runtime::traces::Span;

use super::{EmbedError, Engine};
use crate::tokenise::{Cut, TokeniseError, Tokeniser};

/// Bytes of texts that are tokenised where they were read. To go to another thread and back takes longer than they do.
const SHORT: usize = 512;

/// Bytes as which each text counts beside its own: an empty one takes time too.
const EACH: usize = 32;

/// Whether texts of these sizes are quickly tokenised. To cut at the start may take a second tokenizer, which takes long
/// to make.
pub(super) fn is_short(mut sizes: impl Iterator<Item = usize>, cut: Cut) -> bool {
    let rest = sizes.try_fold(SHORT, |rest, size| rest.checked_sub(size + EACH));
    cut != Cut::Start && rest.is_some()
}

impl Engine {
    /// Works with the tokeniser: here if that is quickly done.
    pub(super) async fn tokenise<T: Send + 'static>(
        &self,
        is_short: bool,
        work: impl FnOnce(&Tokeniser) -> Result<T, TokeniseError> + Send + 'static,
    ) -> Result<T, EmbedError> {
        if is_short { self.at_once(work) } else { self.blocking(work).await }
    }

    /// Works with the tokeniser on this thread. It must not take long.
    fn at_once<T>(&self, work: impl FnOnce(&Tokeniser) -> Result<T, TokeniseError>) -> Result<T, EmbedError> {
        let work = || self.metrics.tokenising(&Span::current(), || work(&self.tokeniser));
        // A panic inside the tokenizer is the end of the request alone, as it is on another thread.
        Ok(catch_unwind(AssertUnwindSafe(work)).map_err(|_| EmbedError::Tokenise(TokeniseError::Text))??)
    }

    /// Works with the tokeniser where that holds up nothing, on a bounded number of threads.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tokeniser) -> Result<T, TokeniseError> + Send + 'static,
    ) -> Result<T, EmbedError> {
        let permit = self.tokenising.clone().acquire_owned().await.map_err(|_| EmbedError::STOPPED)?;
        let (tokeniser, metrics, span) = (self.tokeniser.clone(), self.metrics.clone(), Span::current());
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            metrics.tokenising(&span, || work(&tokeniser))
        });
        // The only ways to fail are a panic inside the tokenizer and the end of the runtime.
        Ok(work.await.map_err(|_| EmbedError::Tokenise(TokeniseError::Text))??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_together_or_not_at_all() {
        for (sizes, cut, short) in [
            (vec![60], Cut::End, true),
            (vec![SHORT - EACH], Cut::Refuse, true),
            (vec![SHORT - EACH + 1], Cut::End, false),
            (vec![0; SHORT / EACH], Cut::End, true),
            (vec![0; SHORT / EACH + 1], Cut::End, false),
            (vec![60], Cut::Start, false),
        ] {
            assert_eq!(is_short(sizes.iter().copied(), cut), short, "{sizes:?} {cut:?}");
        }
    }
}
