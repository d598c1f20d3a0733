//! What was applied last, so that what has not changed is not applied again. Pure: the time is an argument.
//!
//! Who was forgotten here, or changed by somebody else, is applied as ever; a mistake costs a request or, where no watch
//! tells of a change, some minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

/// How long an object that is not watched is taken to be as it was applied: not quite as long as from one look at a
/// service to the next when nothing happens, so that each of those finds out.
pub const TRUSTED: Duration = Duration::from_secs(240);

/// Names an object of a service: the uid of the service, and the kind.
pub type Key = (String, &'static str);

/// What was applied last, by object.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<Key, Applied>);

#[derive(Debug)]
struct Applied {
    print: Print,
    uid: Option<String>,
    version: Option<String>,
    generation: Option<i64>,
    checked: Instant,
    since: Instant,
}

/// Tells what was to be applied from anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print(u64);

/// What an object that is not watched needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is as it should be.
    Nothing,
    /// To be compared: this process has not applied it yet, and the one before may have.
    Compare,
    /// To be looked at: it was right some minutes ago.
    Look,
    /// To be applied.
    Apply,
}

impl Print {
    /// Of an object, for a service whose user has written this about it. Somebody who wants everything to be applied again
    /// annotates the service.
    pub fn of(object: &impl Serialize, service: &ObjectMeta) -> Self {
        let mut hasher = DefaultHasher::new();
        // An object that cannot be written down is one that the API server cannot be sent either.
        serde_json::to_vec(object).unwrap_or_default().hash(&mut hasher);
        service.annotations.hash(&mut hasher);
        service.labels.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Memory {
    /// What an object needs that should be so.
    pub fn need(&self, key: &Key, print: Print, now: Instant) -> Need {
        match self.0.get(key) {
            None => Need::Compare,
            Some(applied) if applied.print != print => Need::Apply,
            Some(applied) if now.saturating_duration_since(applied.checked) < TRUSTED => Need::Nothing,
            Some(_) => Need::Look,
        }
    }

    /// Whether an object was applied by this process, or found to be as it should be.
    pub fn knows(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// Whether an object that was read is still as it was applied; if so it is trusted again.
    pub fn is_unchanged(&mut self, key: &Key, found: &ObjectMeta, now: Instant) -> bool {
        let Some(applied) = self.0.get_mut(key) else { return false };
        let same = applied.uid == found.uid && applied.version == found.resource_version;
        if same {
            applied.checked = now;
        }
        same
    }

    /// Whether an object that is watched should be so and is. Its version changes with its status; its generation tells
    /// whether somebody else has changed what it is to be.
    pub fn stands(&self, key: &Key, print: Print, built: &ObjectMeta, seen: &ObjectMeta) -> bool {
        let labels = |meta: &ObjectMeta| meta.labels.clone().unwrap_or_default();
        let seen_labels = labels(seen);
        self.0.get(key).is_some_and(|applied| {
            applied.print == print && applied.uid == seen.uid && applied.generation == seen.generation
        }) && labels(built).iter().all(|(name, value)| seen_labels.get(name) == Some(value))
            && built.owner_references == seen.owner_references
    }

    /// Since when an object is to be as it is, also if it had to be applied again.
    pub fn since(&self, key: &Key) -> Option<Instant> {
        self.0.get(key).map(|applied| applied.since)
    }

    /// An object was applied, or found to be so, and this came of it.
    pub fn applied(&mut self, key: Key, print: Print, result: &ObjectMeta, now: Instant) {
        let before = self.0.get(&key).filter(|before| before.print == print);
        let applied = Applied {
            since: before.map_or(now, |before| before.since),
            print,
            uid: result.uid.clone(),
            version: result.resource_version.clone(),
            generation: result.generation,
            checked: now,
        };
        self.0.insert(key, applied);
    }

    /// Forgets the services that are not among these.
    pub fn retain(&mut self, uids: &BTreeSet<String>) {
        self.0.retain(|(uid, _), _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).expect("metadata")
    }

    fn print(object: &str) -> Print {
        Print::of(&object, &ObjectMeta::default())
    }

    fn key() -> Key {
        ("u".into(), "Service")
    }

    /// `a` was applied just now.
    fn applied() -> (Memory, Instant) {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let result = meta(json!({"uid": "x", "resourceVersion": "5", "generation": 2}));
        memory.applied(key(), print("a"), &result, now);
        (memory, now)
    }

    #[test]
    fn what_is_to_be_other_is_applied_and_what_is_not_known_is_compared() {
        let (memory, now) = applied();
        assert_eq!(memory.need(&("other".into(), "Service"), print("a"), now), Need::Compare);
        assert_eq!(memory.need(&key(), print("b"), now), Need::Apply);
        assert_eq!(memory.need(&key(), print("a"), now), Need::Nothing);
        let annotated = Print::of(&"a", &meta(json!({"annotations": {"look": "again"}})));
        assert_eq!(memory.need(&key(), annotated, now), Need::Apply);
    }

    #[test]
    fn what_is_not_watched_is_looked_at_after_a_while() {
        let (mut memory, now) = applied();
        let later = now + TRUSTED;
        assert_eq!(memory.need(&key(), print("a"), later), Need::Look);
        let edited = meta(json!({"uid": "x", "resourceVersion": "6"}));
        let another = meta(json!({"uid": "y", "resourceVersion": "5"}));
        assert!(
            !memory.is_unchanged(&key(), &edited, later) && !memory.is_unchanged(&key(), &another, later)
        );
        assert_eq!(memory.need(&key(), print("a"), later), Need::Look);
        assert!(memory.is_unchanged(&key(), &meta(json!({"uid": "x", "resourceVersion": "5"})), later));
        assert_eq!(memory.need(&key(), print("a"), later), Need::Nothing);
    }

    #[test]
    fn what_is_watched_stands_until_somebody_else_changes_it() {
        let (memory, _) = applied();
        let owner = json!([{"apiVersion": "v1", "kind": "X", "name": "s", "uid": "u"}]);
        let built = meta(json!({"labels": {"ours": "1"}, "ownerReferences": owner}));
        let seen = |change: Value| {
            let mut seen = json!({"uid": "x", "resourceVersion": "99", "generation": 2,
                "labels": {"ours": "1", "theirs": "2"}, "ownerReferences": owner});
            seen.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            meta(seen)
        };
        let stands = |change: Value| memory.stands(&key(), print("a"), &built, &seen(change));
        assert!(stands(json!({})), "its status has changed");
        for foreign in [
            json!({"generation": 3}),
            json!({"uid": "y"}),
            json!({"labels": {}}),
            json!({"ownerReferences": null}),
            // What we have applied was not seen yet, so that what was seen says nothing.
            json!({"generation": 1}),
        ] {
            assert!(!stands(foreign.clone()), "{foreign}");
        }
        assert!(!memory.stands(&key(), print("b"), &built, &seen(json!({}))));
    }

    /// Somebody who undoes it again and again does not make it new.
    #[test]
    fn it_is_to_be_so_since_it_was_first_applied_so() {
        let (mut memory, start) = applied();
        let later = start + Duration::from_secs(1);
        memory.applied(key(), print("a"), &ObjectMeta::default(), later);
        assert_eq!(memory.since(&key()), Some(start));
        memory.applied(key(), print("b"), &ObjectMeta::default(), later);
        assert_eq!(memory.since(&key()), Some(later));
    }

    #[test]
    fn services_that_are_gone_are_forgotten() {
        let (mut memory, now) = applied();
        memory.retain(&BTreeSet::from(["u".into()]));
        assert_eq!(memory.need(&key(), print("a"), now), Need::Nothing);
        memory.retain(&BTreeSet::new());
        assert_eq!(memory.need(&key(), print("a"), now), Need::Compare);
        assert!(!memory.knows(&key()));
    }
}
