//! The keys of all services together.

use std::collections::HashMap;

use super::keys::{KeyHash, KeyRing};

/// Says whether anybody holds a key without looking through the services: it takes the same time in whichever service
/// a key is listed, or in none. (How the map finds a hash is salted anew in each process, and a hash says nothing about
/// its key.)
#[derive(Debug, Default)]
pub struct KeyIndex {
    /// Services that list a key.
    holders: HashMap<KeyHash, usize>,
    /// Services that are not open.
    closed: usize,
}

impl KeyIndex {
    /// A service lists these keys.
    pub fn add(&mut self, keys: &KeyRing) {
        self.closed += usize::from(!keys.is_open());
        for hash in keys.hashes() {
            *self.holders.entry(hash).or_default() += 1;
        }
    }

    /// A service that listed these keys does so no longer.
    pub fn remove(&mut self, keys: &KeyRing) {
        self.closed -= usize::from(!keys.is_open());
        for hash in keys.hashes() {
            if let Some(count) = self.holders.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    self.holders.remove(&hash);
                }
            }
        }
    }

    /// Whether all services are open.
    pub fn is_empty(&self) -> bool {
        self.closed == 0
    }

    /// How many services are not.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// Whether some service lists this key.
    pub fn contains(&self, hash: &KeyHash) -> bool {
        self.holders.contains_key(hash)
    }
}
