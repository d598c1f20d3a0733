//! Who sends a request, told from the key that it shows.
//!
//! A service with keys does not exist for a caller without one of them: it is neither routed to nor listed. So what such
//! a caller hears does not tell whether there is one, whatever host, path or model he tries.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::{
    keys::{Account, KeyHash, KeyRing},
    refusal::Refusal,
};

/// Where a key may stand: after `Bearer` in the first, as OpenAI's clients write it, or alone in one of the others, as
/// Azure's do and as API gateways pass it on.
const HEADERS: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("api-key"), HeaderName::from_static("x-api-key")];

/// Bytes of a key; nothing longer is one.
const LONGEST: usize = 512;

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No service has keys, so that it does not matter.
    Anybody,
    /// Shows no key.
    Nobody,
    /// Shows what is a key of no service.
    Stranger,
    /// Shows a key of at least one service.
    Holder(KeyHash),
}

impl Caller {
    /// Reads the headers of a request to a gateway where some service has keys; `known` tells whether one has this.
    pub fn of(headers: &HeaderMap, known: impl Fn(&KeyHash) -> bool) -> Self {
        let mut caller = Self::Nobody;
        for key in keys(headers) {
            let hash = (key.len() <= LONGEST).then(|| KeyHash::of(key));
            match hash.filter(&known) {
                Some(hash) => return Self::Holder(hash),
                // Another header may hold a better one: OpenAI's clients always send something in the first.
                None => caller = Self::Stranger,
            }
        }
        caller
    }

    /// Whether a service with these keys is there for this caller.
    pub fn may_use(&self, keys: &KeyRing) -> bool {
        keys.is_open() || self.account(keys).is_some()
    }

    /// The caller's account with a service.
    pub fn account<'a>(&self, keys: &'a KeyRing) -> Option<&'a Arc<Account>> {
        match self {
            Self::Holder(hash) => keys.find(hash),
            Self::Anybody | Self::Nobody | Self::Stranger => None,
        }
    }

    /// What this caller is told where no service is found: without a key, that one is needed.
    pub fn told(&self, refusal: Refusal) -> Refusal {
        match (refusal, self) {
            (Refusal::UnknownUrl { .. } | Refusal::UnknownModel { .. }, Self::Nobody | Self::Stranger) => {
                Refusal::InvalidApiKey { shown: *self == Self::Stranger }
            }
            (refusal, _) => refusal,
        }
    }

    /// Whether this shows a key, which goes no further.
    pub fn is_holder(&self) -> bool {
        matches!(self, Self::Holder(_))
    }

    /// Takes a key of this cluster off a request: pods have no use for it, and one service's must not learn the key of
    /// another. What is no such key is left alone, for a pod of an open service may ask for it.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if let Self::Holder(_) = self {
            HEADERS.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
}

/// The keys that a request shows, at most one in each header.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    HEADERS.into_iter().filter_map(|name| {
        let value = headers.get(&name)?.as_bytes();
        let key = if name == AUTHORIZATION { bearer(value)? } else { value };
        Some(key.trim_ascii()).filter(|key| !key.is_empty())
    })
}

/// `Bearer KEY`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::keys::{Allowance, ApiKey};

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    /// In a cluster where `secret` is a key.
    fn caller(lines: &[(&str, &str)]) -> Caller {
        Caller::of(&headers(lines), |hash| *hash == KeyHash::of(b"secret"))
    }

    fn ring(keys: &[&str]) -> KeyRing {
        let key = |key: &&str| ApiKey {
            name: (*key).to_owned(),
            hash: Some(KeyHash::of(key.as_bytes())),
            allowance: Allowance::default(),
        };
        KeyRing::new(&keys.iter().map(key).collect::<Vec<_>>(), None)
    }

    #[test]
    fn a_key_is_found_where_clients_write_it() {
        for line in [
            ("authorization", "Bearer secret"),
            ("authorization", "bearer  secret"),
            ("api-key", "secret"),
            ("x-api-key", " secret "),
        ] {
            assert_eq!(caller(&[line]), Caller::Holder(KeyHash::of(b"secret")), "{line:?}");
        }
        for first in ["Basic abc", "Bearer none", "Bearer "] {
            let behind = [("authorization", first), ("api-key", ""), ("x-api-key", "secret")];
            assert_eq!(caller(&behind), Caller::Holder(KeyHash::of(b"secret")), "{first}");
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for line in
            [("authorization", "Basic secret"), ("authorization", "secret"), ("authorization", "Bearer ")]
        {
            assert_eq!(caller(&[line]), Caller::Nobody, "{line:?}");
        }
        assert_eq!(caller(&[("api-key", "Secret")]), Caller::Stranger);
        let long = "x".repeat(LONGEST + 1);
        let all = Caller::of(&headers(&[("api-key", &long)]), |_| panic!("it is not even looked up"));
        assert_eq!(all, Caller::Stranger);
    }

    #[test]
    fn a_service_is_there_for_who_holds_its_key() {
        let holder = caller(&[("api-key", "secret")]);
        for (caller, own, other) in [
            (holder, true, false),
            (Caller::Stranger, false, false),
            (Caller::Nobody, false, false),
            (Caller::Anybody, false, false),
        ] {
            assert_eq!(
                (caller.may_use(&ring(&["a", "secret"])), caller.may_use(&ring(&["a"]))),
                (own, other)
            );
            assert!(caller.may_use(&KeyRing::default()), "an open service is there for all");
        }
    }

    #[test]
    fn without_a_key_nothing_is_told_of_what_there_is() {
        let unknown =
            || [Refusal::UnknownUrl { asked: None }, Refusal::UnknownModel { model: "m".to_owned() }];
        for refusal in unknown() {
            assert_eq!(Caller::Nobody.told(refusal.clone()), Refusal::InvalidApiKey { shown: false });
            assert_eq!(Caller::Stranger.told(refusal.clone()), Refusal::InvalidApiKey { shown: true });
            assert_eq!(Caller::Anybody.told(refusal.clone()), refusal);
            assert_eq!(caller(&[("api-key", "secret")]).told(refusal.clone()), refusal);
        }
        assert_eq!(Caller::Nobody.told(Refusal::TwoHosts), Refusal::TwoHosts);
    }

    #[test]
    fn a_key_goes_no_further() {
        let lines = [("authorization", "Bearer secret"), ("x-api-key", "x"), ("traceparent", "t")];
        let mut kept = headers(&lines);
        caller(&lines).strip(&mut kept);
        assert_eq!(kept, headers(&[("traceparent", "t")]));
        let mut kept = headers(&[("authorization", "Bearer of the pod")]);
        Caller::Stranger.strip(&mut kept);
        assert!(kept.contains_key("authorization"));
    }

    proptest! {
        #[test]
        fn any_header_is_read(value in any::<Vec<u8>>()) {
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                let headers: HeaderMap = [(AUTHORIZATION, value)].into_iter().collect();
                let _ = Caller::of(&headers, |_| false);
            }
        }
    }
}
