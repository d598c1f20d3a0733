//! Where a model is: read from the one word that names it.

use std::{fmt, path::PathBuf};

use kembed_queue::wire::FailureReason;

use super::listing::is_listing;
use crate::model::{digest::is_hex, files::is_plain};

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
    /// In an object store.
    Objects(Bucket),
    /// In a folder of this machine.
    Folder(PathBuf),
}

/// What lies below a prefix of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Whose bucket it is.
    pub store: Store,
    /// The bucket; Azure calls it a container.
    pub name: String,
    /// Without slashes at its ends; empty for all of the bucket.
    pub prefix: String,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.store.scheme(), self.name, self.prefix)
    }
}

/// A kind of object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Amazon S3, and whatever speaks as it does.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Store {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// What stands before `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }

    /// How the variables begin that its tools read.
    pub fn variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_",
            Self::Google => "GOOGLE_",
            Self::Azure => "AZURE_",
        }
    }

    /// Variables of which each says as whom to ask, the usual one first.
    pub fn identities(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            ],
            Self::Google => &[
                "GOOGLE_APPLICATION_CREDENTIALS",
                "GOOGLE_SERVICE_ACCOUNT",
                "GOOGLE_SERVICE_ACCOUNT_PATH",
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "GOOGLE_BEARER_TOKEN",
            ],
            Self::Azure => &[
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_STORAGE_SAS_KEY",
                "AZURE_STORAGE_TOKEN",
                "AZURE_FEDERATED_TOKEN_FILE",
                "AZURE_CLIENT_SECRET",
            ],
        }
    }
}

/// The word names no place that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another kind of place.
    #[error("models cannot be read from {0}://; use hf://, s3://, gs://, az://, https:// or a folder")]
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
            other => match Store::ALL.into_iter().find(|store| store.scheme() == other) {
                Some(store) => bucket(store, rest)
                    .ok_or_else(|| LocationError::Form(word.into(), "s3://bucket/folder (or gs://, az://)")),
                None => Err(LocationError::Unsupported(other.into())),
            },
        }
    }

    /// The revision that will be loaded, if it is known without asking: one that never moves.
    pub(super) fn fixed<'a>(&'a self, recorded: Option<&'a str>) -> Option<&'a str> {
        match self {
            Self::Hub { revision, .. } => Some(recorded.unwrap_or(revision)).filter(|name| is_commit(name)),
            Self::Objects(_) => recorded.filter(|name| is_listing(name)),
            Self::Web(_) | Self::Folder(_) => None,
        }
    }
}

fn bucket(store: Store, rest: &str) -> Option<Location> {
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fine = !name.is_empty()
        && name.chars().all(word)
        && (prefix.is_empty() || is_plain(prefix))
        && !prefix.chars().any(char::is_control);
    fine.then(|| Location::Objects(Bucket { store, name: name.to_owned(), prefix: prefix.to_owned() }))
}

fn hub(rest: &str) -> Option<Location> {
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let fine = [repository, revision].iter().all(|part| is_plain(part) && part.chars().all(word));
    (fine && repository.matches('/').count() <= 1)
        .then(|| Location::Hub { repository: repository.to_owned(), revision: revision.to_owned() })
}

/// Whether a revision is a commit, which never moves.
fn is_commit(revision: &str) -> bool {
    is_hex(revision, 40)
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
        let bucket = |store, prefix: &str| {
            Ok(Location::Objects(Bucket { store, name: "b-1.c".into(), prefix: prefix.into() }))
        };
        assert_eq!(Location::parse("s3://b-1.c"), bucket(Store::S3, ""));
        assert_eq!(Location::parse("gs://b-1.c/"), bucket(Store::Google, ""));
        assert_eq!(Location::parse("az://b-1.c/k/l m/"), bucket(Store::Azure, "k/l m"));
        assert_eq!(Location::parse("/models/a"), Ok(Location::Folder("/models/a".into())));
        assert_eq!(Location::parse("./a@b"), Ok(Location::Folder("./a@b".into())));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for word in [
            "hf://",
            "hf://a/b/c",
            "hf://a/../b",
            "hf://a/b@",
            "hf://a/b c",
            "hf:///etc",
            "https://",
            "s3://",
            "s3:///k",
            "gs://b//k",
            "az://c/../k",
            "s3://b?versions/k",
            "s3://key:secret@host/b",
        ] {
            assert!(matches!(Location::parse(word), Err(LocationError::Form(..))), "{word}");
        }
        assert!(matches!(Location::parse("ftp://h/f"), Err(LocationError::Unsupported(_))));
        assert!(matches!(Location::parse("pvc://claim/a"), Err(LocationError::Volume(_))));
    }

    #[test]
    fn what_never_moves_needs_no_asking() {
        let (commit, listing) = ("0123456789".repeat(4), "01234567".repeat(8));
        let hub = Location::parse(&format!("hf://a/b@{commit}")).expect("a good word");
        assert_eq!(hub.fixed(None), Some(commit.as_str()));
        assert_eq!(hub.fixed(Some("main")), None);
        let objects = Location::parse("s3://b/k").expect("a good word");
        assert_eq!(objects.fixed(None), None);
        assert_eq!(objects.fixed(Some("../..")), None);
        assert_eq!(objects.fixed(Some(&listing)), Some(listing.as_str()));
    }

    #[test]
    fn only_commits_never_move() {
        assert!(is_commit(&"0123456789".repeat(4)));
        assert!(!is_commit("main"));
        assert!(!is_commit(&"A".repeat(40)));
    }
}
