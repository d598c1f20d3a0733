//! Pairs of texts to token ids.

use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection};

use super::{Cut, TokeniseError, Tokeniser};

/// Pairs that have their first text in common, which is tokenised once.
pub struct Pairs<'t> {
    tokenizer: &'t Tokenizer,
    of: &'t Tokeniser,
    first: One,
    cut: Cut,
    /// Tokens that both texts may have together.
    room: usize,
}

/// One text of a pair.
#[derive(Clone)]
struct One {
    /// At most as many tokens as an input may have, from the side that stays.
    tokens: Encoding,
    /// Tokens that the text has; as many as bytes, if they are more than an input may have.
    length: usize,
}

/// Token ids and the type of each: zero for those of the first text.
pub type Typed = (Vec<u32>, Vec<u32>);

impl Tokeniser {
    /// Pairs with this first text. Takes time in proportion to it: not for async threads.
    ///
    /// # Errors
    /// If the tokenizer cannot take it, or the model's limit leaves no room for pairs.
    pub fn pairs(&self, first: &str, cut: Cut) -> Result<Pairs<'_>, TokeniseError> {
        // One that cuts leaves what is needed, but for beginnings that are to go.
        let tokenizer = if cut == Cut::Start { self.uncut() } else { &self.tokenizer };
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let room = self.max_tokens.saturating_sub(special);
        if room == 0 {
            return Err(TokeniseError::TooLong { limit: self.max_tokens });
        }
        let first = self.one(tokenizer, first)?;
        Ok(Pairs { tokenizer, of: self, first, cut, room })
    }

    fn one(&self, tokenizer: &Tokenizer, text: &str) -> Result<One, TokeniseError> {
        let text = self.in_case(text);
        let mut tokens = tokenizer.encode_fast(&*text, false).map_err(|_| TokeniseError::Text)?;
        tokens.truncate(self.max_tokens, 0, TruncationDirection::Left);
        // What is cut off is kept beside, and would be paired, each piece with each.
        tokens.take_overflowing();
        // What a tokenizer cuts it does not count. Bytes tell which of two such texts is longer.
        let length = if tokens.len() < self.max_tokens { tokens.len() } else { text.len().max(tokens.len()) };
        Ok(One { tokens, length })
    }
}

impl Pairs<'_> {
    /// The tokens of both texts, special ones included. What is too long is cut, the longer text first.
    ///
    /// # Errors
    /// If the tokenizer cannot take this text, or the two are too long and may not be cut.
    pub fn with(&self, second: &str) -> Result<Typed, TokeniseError> {
        let (mut first, mut second) = (self.first.clone(), self.of.one(self.tokenizer, second)?);
        second.tokens.set_type_ids(vec![1; second.tokens.len()]);
        let lengths = split([first.length, second.length], self.room);
        if lengths != [first.length, second.length] {
            let direction = match self.cut {
                Cut::Refuse => return Err(TokeniseError::TooLong { limit: self.of.max_tokens }),
                Cut::End => TruncationDirection::Right,
                Cut::Start => TruncationDirection::Left,
            };
            for (one, length) in [&mut first, &mut second].into_iter().zip(lengths) {
                one.tokens.truncate(length, 0, direction);
                one.tokens.take_overflowing();
            }
        }
        let both = self.tokenizer.post_process(first.tokens, Some(second.tokens), true);
        let both = both.map_err(|_| TokeniseError::Text)?;
        Ok((both.get_ids().to_vec(), both.get_type_ids().to_vec()))
    }
}

/// How much of two texts fits, as tokenizers have it: all of one that takes no more than half, else half of each; what is
/// odd is the longer text's.
fn split([first, second]: [usize; 2], room: usize) -> [usize; 2] {
    if first + second <= room {
        return [first, second];
    }
    let shorter = first.min(second).min(room / 2);
    if first > second { [room - shorter, shorter] } else { [shorter, room - shorter] }
}

#[cfg(test)]
mod tests {
    use tokenizers::{TruncationParams, truncate_encodings};

    use super::*;
    use crate::tokenise::tests::JSON;

    const TOO_LONG: TokeniseError = TokeniseError::TooLong { limit: 7 };

    fn pair(first: &str, second: &str, cut: Cut) -> Result<Typed, TokeniseError> {
        let tokeniser = Tokeniser::new(JSON.as_bytes(), 7, false).expect("a good file");
        tokeniser.pairs(first, cut)?.with(second)
    }

    #[test]
    fn the_second_text_has_another_type() {
        for cut in [Cut::End, Cut::Start, Cut::Refuse] {
            let types = vec![0, 0, 0, 1, 1, 1];
            assert_eq!(pair("a", "b a", cut), Ok((vec![1, 4, 2, 5, 4, 2], types)));
        }
        assert_eq!(pair("", "", Cut::End), Ok((vec![1, 2, 2], vec![0, 0, 1])));
    }

    #[test]
    fn the_longer_text_is_cut() {
        // Four tokens beside three special ones.
        for (first, second, end, start) in [
            ("a", "b b b a", vec![1, 4, 2, 5, 5, 5, 2], vec![1, 4, 2, 5, 5, 4, 2]),
            ("b b b a", "a", vec![1, 5, 5, 5, 2, 4, 2], vec![1, 5, 5, 4, 2, 4, 2]),
            ("a b b b", "b b b a", vec![1, 4, 5, 2, 5, 5, 2], vec![1, 5, 5, 2, 5, 4, 2]),
        ] {
            assert_eq!(pair(first, second, Cut::End).map(|typed| typed.0), Ok(end), "{first}, {second}");
            assert_eq!(pair(first, second, Cut::Start).map(|typed| typed.0), Ok(start), "{first}, {second}");
            assert_eq!(pair(first, second, Cut::Refuse), Err(TOO_LONG));
        }
    }

    #[test]
    fn texts_far_over_the_limit_are_cut_as_those_just_over_it() {
        let long = format!("{}a", "b ".repeat(20_000));
        assert_eq!(pair(&long, &long, Cut::End).map(|typed| typed.0), Ok(vec![1, 5, 5, 2, 5, 5, 2]));
        assert_eq!(pair(&long, &long, Cut::Start).map(|typed| typed.0), Ok(vec![1, 5, 4, 2, 5, 4, 2]));
        assert_eq!(pair("a", &long, Cut::Refuse), Err(TOO_LONG));
    }

    /// What the tokenizer itself makes of a pair when it cuts after it has seen the whole.
    fn expected(tokeniser: &Tokeniser, first: &str, second: &str) -> Typed {
        let one = |text: &str| tokeniser.uncut().encode_fast(text, false).expect("a good text");
        let max_length = tokeniser.max_tokens - 3;
        let params = TruncationParams { max_length, ..TruncationParams::default() };
        let (first, second) =
            truncate_encodings(one(first), Some(one(second)), &params).expect("they can be cut");
        let both = tokeniser.uncut().post_process(first, second, true).expect("good encodings");
        (both.get_ids().to_vec(), both.get_type_ids().to_vec())
    }

    #[test]
    fn pairs_are_those_of_the_tokenizer_itself() {
        let sizes = [0, 1, 2, 3, 4, 5, 6, 9, 30];
        let text = |tokens: usize| "a b b ".chars().cycle().take(2 * tokens).collect::<String>();
        for limit in 4..10 {
            let tokeniser = Tokeniser::new(JSON.as_bytes(), limit, false).expect("a good file");
            for (first, second) in sizes.iter().flat_map(|&a| sizes.map(|b| (text(a), text(b)))) {
                let pairs = tokeniser.pairs(&first, Cut::End).expect("good texts");
                let expected = expected(&tokeniser, &first, &second);
                assert_eq!(pairs.with(&second), Ok(expected), "{limit}: {first}, {second}");
            }
        }
    }

    #[test]
    fn without_room_for_pairs_there_are_none() {
        let tokeniser = Tokeniser::new(JSON.as_bytes(), 3, false).expect("a good file");
        assert!(matches!(tokeniser.pairs("a", Cut::End).err(), Some(TokeniseError::TooLong { limit: 3 })));
    }
}
