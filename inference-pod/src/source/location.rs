//! Where a model is: read from the one word that names it.

use std::path::PathBuf;

use kembed_queue::wire::FailureReason;

use crate::model::files::is_plain;

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// On a model hub.
    Hub {
        /// `organisation/name`
        repository: String,
        /// A branch, a tag or a commit.
        revision: String,
    },
    /// In a folder of a web server: a URL that ends with a slash.
    Web(String),
    /// In a folder of this machine.
    Folder(PathBuf),
}

/// The word names no place that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another kind of place.
    #[error("models cannot be read from {0}:// yet; use hf://, https:// or a folder")]
    Unsupported(String),
    /// Places that only Kubernetes can bring.
    #[error("{0}:// is a volume that Kubernetes mounts; outside of it, give the folder")]
    Volume(String),
    /// A kind of place, and nothing that could be in it.
    #[error("{0:?} is not of the form {1}")]
    Form(String, &'static str),
}

impl LocationError {
    /// The bounded reason.
    pub fn reason(&self) -> FailureReason {
        FailureReason::SourceUnsupported
    }
}

impl Location {
    /// Reads it.
    ///
    /// # Errors
    /// If there is no way to read from there.
    pub fn parse(word: &str) -> Result<Self, LocationError> {
        let Some((scheme, rest)) = word.split_once("://") else {
            return Ok(Self::Folder(word.into()));
        };
        match scheme {
            "hf" => {
                hub(rest).ok_or_else(|| LocationError::Form(word.into(), "hf://organisation/name@revision"))
            }
            "http" | "https" if rest.starts_with('/') || rest.is_empty() => {
                Err(LocationError::Form(word.into(), "https://host/folder/"))
            }
            "http" | "https" => Ok(Self::Web(format!("{}/", word.trim_end_matches('/')))),
            "pvc" | "image" => Err(LocationError::Volume(scheme.into())),
            other => Err(LocationError::Unsupported(other.into())),
        }
    }
}

fn hub(rest: &str) -> Option<Location> {
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let fine = [repository, revision].iter().all(|part| is_plain(part) && part.chars().all(word));
    (fine && repository.matches('/').count() <= 1)
        .then(|| Location::Hub { repository: repository.to_owned(), revision: revision.to_owned() })
}

/// Whether a revision is a commit, which never moves.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(repository: &str, revision: &str) -> Result<Location, LocationError> {
        Ok(Location::Hub { repository: repository.into(), revision: revision.into() })
    }

    #[test]
    fn places_are_told_apart() {
        assert_eq!(Location::parse("hf://a/b"), hub("a/b", "main"));
        assert_eq!(Location::parse("hf://a/b@refs/pr/1"), hub("a/b", "refs/pr/1"));
        assert_eq!(Location::parse("hf://gpt2@v1.0"), hub("gpt2", "v1.0"));
        assert_eq!(Location::parse("https://host/a"), Ok(Location::Web("https://host/a/".into())));
        assert_eq!(Location::parse("/models/a"), Ok(Location::Folder("/models/a".into())));
        assert_eq!(Location::parse("./a@b"), Ok(Location::Folder("./a@b".into())));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for word in ["hf://", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a/b c", "hf:///etc", "https://"]
        {
            assert!(matches!(Location::parse(word), Err(LocationError::Form(..))), "{word}");
        }
        for word in ["s3://b/k", "gs://b/k", "az://c/k", "ftp://h/f"] {
            assert!(matches!(Location::parse(word), Err(LocationError::Unsupported(_))), "{word}");
        }
        assert!(matches!(Location::parse("pvc://claim/a"), Err(LocationError::Volume(_))));
    }

    #[test]
    fn only_commits_never_move() {
        assert!(is_commit(&"0123456789".repeat(4)));
        assert!(!is_commit("main"));
        assert!(!is_commit(&"A".repeat(40)));
    }
}
