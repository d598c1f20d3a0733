//! Whether this pod's vectors are comparable with those that the service gave before.

use kembed_queue::wire::{RecordedSpace, Space};

/// This pod's space is not the one that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Not the one that the service's owner pinned.
    #[error("the model has digest {own}{}, and the service pins {pinned}", revision(.own_revision))]
    Pinned {
        /// What was computed here.
        own: String,
        /// What was loaded here.
        own_revision: Option<String>,
        /// What was asked for.
        pinned: String,
    },
    /// Not the one that the service recorded.
    #[error(
        "the model has digest {own}{}, and the service recorded {recorded}{}; vectors of the two cannot be compared",
        revision(.own_revision), revision(.recorded_revision)
    )]
    Recorded {
        /// What was computed here.
        own: String,
        /// What was loaded here.
        own_revision: Option<String>,
        /// What was recorded.
        recorded: String,
        /// What was loaded when it was recorded.
        recorded_revision: Option<String>,
    },
}

fn revision(revision: &Option<String>) -> String {
    revision.as_ref().map(|revision| format!(" at revision {revision}")).unwrap_or_default()
}

/// Compares a pod's own space with the one pinned and the one recorded, where there are such.
///
/// # Errors
/// If it is another.
pub fn compare(own: &Space, pinned: Option<&str>, recorded: Option<&RecordedSpace>) -> Result<(), Mismatch> {
    if let Some(pinned) = pinned.filter(|&pinned| pinned != own.digest) {
        return Err(Mismatch::Pinned {
            own: own.digest.clone(),
            own_revision: own.revision.clone(),
            pinned: pinned.to_owned(),
        });
    }
    match recorded.filter(|recorded| recorded.digest != own.digest) {
        None => Ok(()),
        Some(recorded) => Err(Mismatch::Recorded {
            own: own.digest.clone(),
            own_revision: own.revision.clone(),
            recorded: recorded.digest.clone(),
            recorded_revision: recorded.revision.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(digest: &str) -> Space {
        Space { digest: digest.into(), revision: Some("abc".into()), dimension: 2, max_tokens: 3 }
    }

    fn recorded(digest: &str) -> RecordedSpace {
        RecordedSpace { digest: digest.into(), revision: Some("def".into()) }
    }

    #[test]
    fn the_same_digest_is_the_same_space() {
        assert_eq!(compare(&space("1"), None, None), Ok(()));
        assert_eq!(compare(&space("1"), Some("1"), Some(&recorded("1"))), Ok(()));
    }

    #[test]
    fn another_is_named_with_both_revisions() {
        let error = compare(&space("1"), None, Some(&recorded("2"))).expect_err("they differ").to_string();
        for word in ["digest 1", "recorded 2", "revision abc", "revision def"] {
            assert!(error.contains(word), "{error}");
        }
        let error = compare(&space("1"), Some("3"), None).expect_err("they differ").to_string();
        assert!(error.contains("pins 3"), "{error}");
    }
}
