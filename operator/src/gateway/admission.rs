//! What a request costs the key that it shows: guessed when it comes, and corrected when it is answered.

use http::{Response, uri::PathAndQuery};
use kembed_queue::credit::{POD_LOAD_HEADER, PodLoad};

use super::{keys::Charge, refusal::Refusal};

/// Bytes that make about a token, while nothing better is known: English has four letters to a token.
const BYTES_A_TOKEN: u64 = 4;

/// About so many tokens has a request with so many bytes of body; a plain `GET` has its text in the query.
pub fn estimate(body: u64, target: &PathAndQuery) -> u64 {
    let query = target.query().map_or(0, str::len) as u64;
    (body + query).div_ceil(BYTES_A_TOKEN)
}

/// Corrects what a key was charged: by what the pod tells, or back to nothing where no pod computed anything. One that
/// did not answer may have.
pub fn settle<B>(charge: Charge, answer: Result<&Response<B>, &Refusal>) {
    match answer {
        Ok(response) => {
            let told = response.headers().get(POD_LOAD_HEADER).and_then(|value| value.to_str().ok());
            match told.and_then(PodLoad::parse) {
                Some(load) => charge.settle(load.work),
                None if !response.status().is_success() => charge.settle(0),
                None => (),
            }
        }
        Err(Refusal::PodFailed | Refusal::TimedOut { .. }) => (),
        Err(_) => charge.settle(0),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use http::{HeaderValue, StatusCode};

    use super::*;
    use crate::gateway::keys::{Allowance, ApiKey, KeyHash, KeyRing};

    #[test]
    fn a_text_is_guessed_wherever_it_stands() {
        let target = |text: &'static str| PathAndQuery::from_static(text);
        assert_eq!(estimate(400, &target("/v1/embeddings")), 100);
        assert_eq!(estimate(0, &target("/?content=abcdef")), 4);
        assert_eq!(estimate(0, &target("/info")), 0);
    }

    /// Tokens that are charged in the end of ten that were guessed.
    fn charged(answer: Result<&Response<()>, &Refusal>) -> u64 {
        let hash = KeyHash::of(b"key");
        let key = ApiKey { name: "key".to_owned(), hash: Some(hash), allowance: Allowance::default() };
        let ring = KeyRing::new(&[key], None);
        let account = Arc::clone(ring.find(&hash).expect("listed"));
        settle(account.admit(10, Instant::now()).expect("no limits"), answer);
        ring.usage().map(|(_, usage)| usage.tokens).sum()
    }

    #[test]
    fn what_was_computed_is_charged() {
        let answer = |status, load: Option<&'static str>| {
            let mut response = Response::new(());
            *response.status_mut() = status;
            let load = load.map(|load| (POD_LOAD_HEADER, HeaderValue::from_static(load)));
            response
                .headers_mut()
                .extend(load.map(|(name, load)| (http::HeaderName::from_static(name), load)));
            response
        };
        let told = Some("credit=1, work=7, rate=0");
        assert_eq!(charged(Ok(&answer(StatusCode::OK, told))), 7);
        assert_eq!(charged(Ok(&answer(StatusCode::OK, None))), 10, "the guess stands");
        assert_eq!(charged(Ok(&answer(StatusCode::OK, Some("nonsense")))), 10);
        assert_eq!(charged(Ok(&answer(StatusCode::BAD_REQUEST, None))), 0);
        assert_eq!(charged(Ok(&answer(StatusCode::GATEWAY_TIMEOUT, told))), 7, "it was computed in vain");
        assert_eq!(charged(Err(&Refusal::Unreachable { tried: 1 })), 0);
        assert_eq!(charged(Err(&Refusal::PodFailed)), 10, "it may have been computed");
        assert_eq!(charged(Err(&Refusal::TimedOut { limit: Duration::ZERO })), 10);
    }
}
