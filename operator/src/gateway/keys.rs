//! API keys: who a caller is, and what each key may send and has sent.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ring::digest::{SHA256, digest};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::bucket::Bucket;

/// SHA-256 of a key. The key itself is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of a key as a client shows it.
    pub fn of(key: &[u8]) -> Self {
        Self(digest(&SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut hash = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// A key as a service lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Whose it is.
    pub name: String,
    /// `None` if what is listed is no hash: then nobody has this key, and the service is closed all the same.
    pub hash: Option<KeyHash>,
    /// What may be sent with it.
    pub allowance: Allowance,
}

/// What may be sent with a key; `None` for any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a second, and as many at once.
    pub requests_per_second: Option<u32>,
    /// Tokens a minute, and as many at once.
    pub tokens_per_minute: Option<u64>,
}

/// Too much was sent with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What was too much.
    pub what: Limit,
    /// When the same request may be sent again.
    pub wait: Duration,
}

/// What is limited, and to how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests a second.
    Requests(u32),
    /// Tokens a minute.
    Tokens(u64),
}

/// The keys of one service. Without any it is open.
#[derive(Debug, Default)]
pub struct KeyRing(Vec<Arc<Account>>);

/// What is known of one key of one service.
#[derive(Debug)]
pub struct Account {
    name: String,
    hash: Option<KeyHash>,
    meters: Mutex<Meters>,
    usage: Counters,
}

#[derive(Debug)]
struct Meters {
    allowance: Allowance,
    /// Full before the first request, and where there is no limit never looked at.
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

#[derive(Debug, Default)]
struct Counters {
    admitted: AtomicU64,
    limited: AtomicU64,
    tokens: AtomicU64,
}

/// What was sent with a key since this gateway began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests that were within its limits.
    pub admitted: u64,
    /// Requests that were not.
    pub limited: u64,
    /// Tokens of requests that are over.
    pub tokens: u64,
}

/// Tokens that a request was charged before it was known how many it has. When this is dropped, the charge stands.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    tokens: u64,
}

impl KeyRing {
    /// For the keys that a service lists now; what was sent with those that it listed before is kept in mind.
    pub fn new(keys: &[ApiKey], before: Option<&Self>) -> Self {
        let known = |key: &ApiKey| {
            let same = |account: &&Arc<Account>| account.name == key.name && account.hash == key.hash;
            before.and_then(|ring| ring.0.iter().find(same)).cloned()
        };
        Self(
            keys.iter()
                .map(|key| {
                    let account = known(key).unwrap_or_else(|| Arc::new(Account::new(key)));
                    account.allow(key.allowance);
                    account
                })
                .collect(),
        )
    }

    /// Whether no key is needed.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// The account of the key with this hash. Takes the same time whichever it is, or none.
    pub fn find(&self, hash: &KeyHash) -> Option<&Arc<Account>> {
        let mut found = u32::MAX;
        for (i, account) in (0u32..).zip(&self.0) {
            let listed = account.hash.unwrap_or(KeyHash([0; 32]));
            let same = listed.0.ct_eq(&hash.0) & u8::from(account.hash.is_some()).into();
            found.conditional_assign(&i, same);
        }
        self.0.get(usize::try_from(found).ok()?)
    }

    /// Hashes of the keys.
    pub fn hashes(&self) -> impl Iterator<Item = KeyHash> {
        self.0.iter().filter_map(|account| account.hash)
    }

    /// What was sent, by name of the key.
    pub fn usage(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.0.iter().map(|account| (account.name.as_str(), account.usage()))
    }
}

impl Account {
    fn new(key: &ApiKey) -> Self {
        let meters = Meters { allowance: key.allowance, requests: None, tokens: None };
        Self {
            name: key.name.clone(),
            hash: key.hash,
            meters: Mutex::new(meters),
            usage: Counters::default(),
        }
    }

    /// Whose key it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets in a request of about so many tokens.
    ///
    /// # Errors
    /// If that is more than may be sent with this key now; then nothing is charged.
    pub fn admit(self: &Arc<Self>, tokens: u64, now: Instant) -> Result<Charge, Limited> {
        let admitted = self.meters().charge(tokens, now);
        let counter = if admitted.is_ok() { &self.usage.admitted } else { &self.usage.limited };
        counter.fetch_add(1, Ordering::Relaxed);
        admitted.map(|()| Charge { account: self.clone(), tokens })
    }

    fn usage(&self) -> Usage {
        let Counters { admitted, limited, tokens } = &self.usage;
        let [admitted, limited, tokens] = [admitted, limited, tokens].map(|n| n.load(Ordering::Relaxed));
        Usage { admitted, limited, tokens }
    }

    /// Other limits begin with full buckets.
    fn allow(&self, allowance: Allowance) {
        let mut meters = self.meters();
        if meters.allowance != allowance {
            *meters = Meters { allowance, requests: None, tokens: None };
        }
    }

    fn meters(&self) -> MutexGuard<'_, Meters> {
        // A panic in between leaves at worst one request uncharged.
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meters {
    /// Charges both or neither.
    fn charge(&mut self, tokens: u64, now: Instant) -> Result<(), Limited> {
        let Self { allowance, requests, tokens: minute } = self;
        let mut requests = allowance.requests_per_second.map(|limit| {
            let rate = f64::from(limit);
            (Limit::Requests(limit), requests.get_or_insert_with(|| Bucket::new(rate, rate, now)), 1.)
        });
        let mut tokens = allowance.tokens_per_minute.map(|limit| {
            let new = || Bucket::new(number(limit), number(limit) / 60., now);
            (Limit::Tokens(limit), minute.get_or_insert_with(new), number(tokens))
        });
        for (what, bucket, amount) in requests.iter_mut().chain(&mut tokens) {
            let wait = bucket.wait(*amount, now);
            if !wait.is_zero() {
                return Err(Limited { what: *what, wait });
            }
        }
        for (_, bucket, amount) in requests.iter_mut().chain(&mut tokens) {
            bucket.take(*amount);
        }
        Ok(())
    }
}

impl Charge {
    /// Corrects the charge: the request had so many tokens, none if nothing was done with it.
    pub fn settle(mut self, tokens: u64) {
        if let Some(bucket) = &mut self.account.meters().tokens {
            bucket.take(number(tokens) - number(self.tokens));
        }
        self.tokens = tokens;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.usage.tokens.fetch_add(self.tokens, Ordering::Relaxed);
    }
}

/// Counts here are far below 2^53, up to which every integer is a float.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(name: &str, allowance: Allowance) -> ApiKey {
        ApiKey { name: name.to_owned(), hash: Some(KeyHash::of(name.as_bytes())), allowance }
    }

    fn requests(limit: u32) -> Allowance {
        Allowance { requests_per_second: Some(limit), ..Allowance::default() }
    }

    fn tokens(limit: u64) -> Allowance {
        Allowance { tokens_per_minute: Some(limit), ..Allowance::default() }
    }

    fn account(allowance: Allowance) -> Arc<Account> {
        Arc::new(Account::new(&key("a", allowance)))
    }

    #[test]
    fn a_hash_is_what_sha256sum_tells() {
        let told = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(KeyHash::of(b"secret").to_string(), told);
        assert_eq!(KeyHash::parse(told), Some(KeyHash::of(b"secret")));
        for other in ["", "2b", &told[1..], &told.replace('2', "g"), &"é".repeat(32)] {
            assert_eq!(KeyHash::parse(other), None, "{other}");
        }
        assert_eq!(format!("{:?}", KeyHash::of(b"secret")), "KeyHash");
    }

    #[test]
    fn a_service_that_lists_keys_is_closed_even_where_none_can_be_shown() {
        assert!(KeyRing::default().is_open());
        let broken = ApiKey { hash: None, ..key("a", Allowance::default()) };
        let ring = KeyRing::new(&[broken], None);
        assert!(!ring.is_open());
        assert!(ring.find(&KeyHash::of(b"a")).is_none());
        assert!(ring.find(&KeyHash([0; 32])).is_none());
    }

    #[test]
    fn requests_a_second() {
        let (account, start) = (account(requests(2)), Instant::now());
        assert!(account.admit(0, start).is_ok() && account.admit(0, start).is_ok());
        let limited = account.admit(0, start).expect_err("two were sent");
        assert_eq!(limited, Limited { what: Limit::Requests(2), wait: SECOND / 2 });
        assert!(account.admit(0, start + limited.wait).is_ok());
        assert_eq!(account.usage(), Usage { admitted: 3, limited: 1, tokens: 0 });
    }

    #[test]
    fn tokens_a_minute_are_charged_first_and_corrected_after() {
        let (account, start) = (account(tokens(60)), Instant::now());
        let charge = account.admit(60, start).expect("a full bucket");
        assert_eq!(account.usage().tokens, 0, "it is not known yet");
        let limited = account.admit(10, start).expect_err("an empty bucket");
        assert_eq!(limited, Limited { what: Limit::Tokens(60), wait: SECOND * 10 });
        charge.settle(45);
        account.admit(15, start).expect("what was charged too much").settle(30);
        assert_eq!(account.usage(), Usage { admitted: 2, limited: 1, tokens: 75 });
        assert_eq!(account.admit(0, start).expect_err("a debt").wait, SECOND * 15);
    }

    #[test]
    fn a_charge_that_nobody_corrects_stands() {
        let (account, start) = (account(tokens(60)), Instant::now());
        drop(account.admit(60, start).expect("a full bucket"));
        assert!(account.admit(1, start).is_err());
        assert_eq!(account.usage().tokens, 60);
    }

    #[test]
    fn what_one_limit_refuses_the_other_does_not_charge() {
        let both = Allowance { requests_per_second: Some(1), tokens_per_minute: Some(60) };
        let (account, start) = (account(both), Instant::now());
        account.admit(60, start).expect("full buckets").settle(60);
        for _ in 0..100 {
            let limited = account.admit(1, start + SECOND / 2).expect_err("one was sent");
            assert_eq!(limited.what, Limit::Requests(1));
        }
        assert!(account.admit(1, start + SECOND).is_ok(), "refusals cost no tokens");
    }

    #[test]
    fn other_news_of_a_service_forgive_nothing() {
        let start = Instant::now();
        let (old, other) = (key("a", requests(1)), key("b", Allowance::default()));
        let ring = KeyRing::new(std::slice::from_ref(&old), None);
        let hash = KeyHash::of(b"a");
        ring.find(&hash).expect("listed").admit(5, start).expect("the first");
        let ring = KeyRing::new(&[other, old], Some(&ring));
        assert!(ring.find(&hash).expect("listed").admit(5, start).is_err());
        let usage: Vec<_> = ring.usage().collect();
        assert_eq!(usage, [("b", Usage::default()), ("a", Usage { admitted: 1, limited: 1, tokens: 5 })]);
        let ring = KeyRing::new(&[key("a", requests(2))], Some(&ring));
        assert!(ring.find(&hash).expect("listed").admit(5, start).is_ok(), "another limit begins anew");
        let replaced = ApiKey { hash: Some(KeyHash::of(b"new")), ..key("a", requests(2)) };
        let ring = KeyRing::new(&[replaced], Some(&ring));
        assert!(ring.find(&hash).is_none());
        assert_eq!(ring.usage().next(), Some(("a", Usage::default())), "another key is another account");
    }

    proptest! {
        #[test]
        fn each_key_is_found_and_no_other(names in proptest::collection::hash_set("[a-d]{1,3}", 0..30), other in "[a-e]{1,3}") {
            let keys: Vec<_> = names.iter().map(|name| key(name, Allowance::default())).collect();
            let ring = KeyRing::new(&keys, None);
            let found = ring.find(&KeyHash::of(other.as_bytes())).map(|account| account.name().to_owned());
            prop_assert_eq!(found, names.get(&other).cloned());
        }

        #[test]
        fn any_text_is_a_hash_or_not(text in any::<String>()) {
            if let Some(hash) = KeyHash::parse(&text) {
                prop_assert_eq!(hash.to_string(), text.to_lowercase());
            }
        }
    }
}
