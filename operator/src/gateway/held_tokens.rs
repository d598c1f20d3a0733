//! Tokens that the API server has vouched for, for when it cannot be asked. Only their hashes are kept.

use std::time::{Duration, Instant};

use super::keys::KeyHash;

/// How long a token is good without the API server. The leader itself cannot lead much longer without it; what this is for
/// are streams that break while it is away or slow.
pub const HELD_FOR: Duration = Duration::from_secs(300);

/// Tokens kept: those of a few controllers, each renewed about once an hour.
const LIMIT: usize = 16;

/// Hashes of tokens, each with the time when the API server vouched for it. Oldest first.
#[derive(Debug, Default)]
pub struct HeldTokens(Vec<(KeyHash, Instant)>);

impl HeldTokens {
    /// The API server vouched for it just now.
    pub fn hold(&mut self, token: KeyHash, now: Instant) {
        self.forget(&token);
        if self.0.len() == LIMIT {
            self.0.remove(0);
        }
        self.0.push((token, now));
    }

    /// The API server refused it.
    pub fn forget(&mut self, token: &KeyHash) {
        self.0.retain(|(held, _)| held != token);
    }

    /// Whether the API server vouched for it not long ago.
    pub fn holds(&self, token: &KeyHash, now: Instant) -> bool {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < HELD_FOR;
        self.0.iter().any(|(held, at)| held == token && fresh(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u8) -> KeyHash {
        KeyHash::of(&[number])
    }

    #[test]
    fn a_token_is_held_for_a_while() {
        let (mut tokens, now) = (HeldTokens::default(), Instant::now());
        tokens.hold(token(1), now);
        assert!(tokens.holds(&token(1), now + HELD_FOR - Duration::from_secs(1)));
        assert!(!tokens.holds(&token(1), now + HELD_FOR));
        assert!(!tokens.holds(&token(2), now));
        tokens.forget(&token(1));
        assert!(!tokens.holds(&token(1), now), "it was refused");
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (mut tokens, now) = (HeldTokens::default(), Instant::now());
        for n in 0..=16 {
            tokens.hold(token(n), now);
        }
        assert!(
            !tokens.holds(&token(0), now) && tokens.holds(&token(1), now) && tokens.holds(&token(16), now)
        );
    }
}
