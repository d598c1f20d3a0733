//! What lies below a prefix of an object store. A store has no commits, so a revision is made of what it lists: names,
//! sizes and ETags. Anything that is added, replaced or removed makes another one.

use std::collections::BTreeMap;

use super::{SourceError, check::bare};
use crate::model::{
    digest::{is_hex, sha256},
    files::is_plain,
};

/// Objects below one prefix: a model has some ten files, and a whole bucket is no model.
const OBJECTS: usize = 10_000;

/// One object as it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes.
    pub(super) size: u64,
    /// What the store calls this content of it. It is no hash that could be computed here: of an object that came in
    /// parts, or that lies encrypted, it is something else.
    pub(super) etag: Option<String>,
}

impl Entry {
    /// ETags are listed with quotes or without, and shown the other way with a file.
    pub(super) fn new(size: u64, etag: Option<&str>) -> Self {
        Self { size, etag: etag.map(|etag| bare(etag).to_owned()) }
    }
}

/// The objects below a prefix, by their names from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing(BTreeMap<String, Entry>);

impl Listing {
    /// Takes one more. A name that would lead out of the cache's folder is of no file.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn add(&mut self, name: String, entry: Entry) -> Result<(), SourceError> {
        if !is_plain(&name) {
            return Ok(());
        }
        self.0.insert(name, entry);
        if self.0.len() > OBJECTS {
            return Err(SourceError::Client(format!(
                "over {OBJECTS} objects lie there; name the folder of the model itself"
            )));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.0.get(name)
    }

    /// SHA-256 over the names in order, each with its size and ETag, in hexadecimal.
    pub(super) fn revision(&self) -> String {
        let mut text = String::new();
        for (name, Entry { size, etag }) in &self.0 {
            // No name and no ETag holds a line break: the one is a path, the other was a header.
            text += &format!("{name}\n{size}\n{}\n", etag.as_deref().unwrap_or_default());
        }
        sha256(text.as_bytes())
    }
}

/// Whether a revision is one of a listing.
pub(super) fn is_listing(revision: &str) -> bool {
    is_hex(revision, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(objects: &[(&str, u64, &str)]) -> Listing {
        let mut listing = Listing::default();
        for &(name, size, etag) in objects {
            listing.add(name.into(), Entry::new(size, Some(etag))).expect("they are few");
        }
        listing
    }

    #[test]
    fn whatever_changes_makes_another_revision() {
        let first = listing(&[("a", 1, "x"), ("b/c", 2, "y")]);
        assert!(is_listing(&first.revision()));
        assert_eq!(listing(&[("b/c", 2, "\"y\""), ("a", 1, "W/\"x\"")]).revision(), first.revision());
        for other in [
            listing(&[("a", 1, "x")]),
            listing(&[("a", 1, "x"), ("b/c", 2, "z")]),
            listing(&[("a", 1, "x"), ("b/c", 3, "y")]),
            listing(&[("a", 1, "x"), ("b/d", 2, "y")]),
            listing(&[("a", 1, "x"), ("b/c", 2, "y"), ("d", 0, "")]),
        ] {
            assert_ne!(other.revision(), first.revision(), "{other:?}");
        }
    }

    #[test]
    fn only_files_inside_count() {
        let listing = listing(&[("../../etc/passwd", 1, "x"), ("", 0, "x"), ("a", 1, "x")]);
        assert_eq!(listing.len(), 1);
        assert_eq!(listing.get("a").map(|entry| entry.size), Some(1));
    }

    #[test]
    fn a_whole_bucket_is_no_model() {
        let mut listing = Listing::default();
        let mut add = |n: usize| listing.add(n.to_string(), Entry::new(1, None));
        assert!((0..OBJECTS).all(|n| add(n).is_ok()));
        assert!(add(OBJECTS).is_err());
    }
}
