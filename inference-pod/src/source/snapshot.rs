//! A model's files at one revision, wherever they are: each is there, whole and verified, once it is asked for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Access, Location, Retry, SourceError,
    cache::{self, Known, Manifest},
    fetch::{Room, Wanted, fetch},
    hub::Hub,
    location::Bucket,
    objects::Objects,
    progress::Progress,
    remote::Remote,
    web::Web,
};
use crate::model::{
    ModelError,
    files::{self, Network},
};

/// Bytes of a file that is read whole: the largest tokenizers have some 30 MB.
const TEXT: u64 = 64 << 20;

/// The files of one model.
pub struct Snapshot {
    /// The immutable revision, where the source has one.
    pub revision: Option<String>,
    /// The file of the network.
    pub network: Network,
    access: Access,
    asked: Option<String>,
    folder: PathBuf,
    place: Place,
    known: BTreeMap<String, Known>,
}

/// Where files come from.
enum Place {
    /// They lie there, and nothing is known of them.
    Folder,
    /// They lie in the cache, as its manifest says.
    Cache,
    /// They may have to be fetched.
    Remote(Remote),
}

impl Snapshot {
    /// Finds a model. `asked` is the file of the network, if it must be a certain one; `recorded` the revision to load
    /// whatever the location says.
    ///
    /// # Errors
    /// If there is no such model, it cannot be reached, or it has no network that can be served.
    pub async fn open(
        location: &Location,
        asked: Option<&str>,
        recorded: Option<&str>,
        access: Access,
        progress: &Progress,
    ) -> Result<Self, SourceError> {
        let fixed = location.fixed(recorded);
        let known = fixed.map(|revision| cache::folder(&access.cache, location, Some(revision)));
        if let Some(cached) = known.and_then(|folder| cached(folder, asked, &access)) {
            return Ok(cached);
        }
        let (place, revision) = match location {
            Location::Folder(folder) if !folder.is_dir() => {
                return Err(SourceError::NotFound(format!("there is no folder {}", folder.display())));
            }
            Location::Folder(_) => (Place::Folder, None),
            Location::Web(base) => (Place::Remote(Remote::Web(Web::new(base)?)), None),
            Location::Hub { repository, revision } => {
                let hub = Hub::new(&access.hub, repository, access.hub_token.clone())?;
                resolve(hub, recorded.unwrap_or(revision), &access, progress).await?
            }
            Location::Objects(bucket) => list(bucket, recorded, &access, progress).await?,
        };
        let folder = cache::folder(&access.cache, location, revision.as_deref());
        if let Some(cached) =
            cached(folder.clone(), asked, &access).filter(|_| !matches!(place, Place::Folder))
        {
            return Ok(cached);
        }
        let network = network(&place, &folder, asked, access.retry).await?;
        let asked = asked.map(ToOwned::to_owned);
        Ok(Self { revision, network, access, asked, folder, place, known: BTreeMap::new() })
    }

    /// The text of a small file; `None` if the model has none.
    ///
    /// # Errors
    /// If it cannot be fetched or read, or is not small.
    pub async fn text(&mut self, name: &str, progress: &Progress) -> Result<Option<String>, SourceError> {
        if !has(&self.place, &self.known, &self.folder, name, self.access.retry).await? {
            return Ok(None);
        }
        let path = self.file_within(name, Some(TEXT), progress).await?;
        let length = tokio::fs::metadata(&path).await.map_err(|e| SourceError::cache(&path, e))?.len();
        if length > TEXT {
            return Err(SourceError::TooLarge { file: name.to_owned(), limit: TEXT });
        }
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                Err(ModelError::invalid(name, "it is no text").into())
            }
            Err(e) => Err(SourceError::cache(path, e)),
        }
    }

    /// Whether the model has such a file.
    ///
    /// # Errors
    /// If the source cannot be asked.
    pub async fn has(&self, name: &str) -> Result<bool, SourceError> {
        has(&self.place, &self.known, &self.folder, name, self.access.retry).await
    }

    /// The path of a file, which is whole and verified.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn file(&mut self, name: &str, progress: &Progress) -> Result<PathBuf, SourceError> {
        self.file_within(name, None, progress).await
    }

    /// The SHA-256 of a file, in hexadecimal. One that was fetched was hashed on the way.
    ///
    /// # Errors
    /// If it cannot be fetched or read.
    pub async fn sha256(&mut self, name: &str, progress: &Progress) -> Result<String, SourceError> {
        let path = self.file(name, progress).await?;
        if let Some(known) = self.known.get(name) {
            return Ok(known.sha256.clone());
        }
        let known = hash(path).await?;
        Ok(self.known.entry(name.to_owned()).or_insert(known).sha256.clone())
    }

    /// Notes in the cache that all files that are needed are there.
    ///
    /// # Errors
    /// If the cache cannot be written.
    pub fn seal(&self) -> Result<(), SourceError> {
        let Place::Remote(_) = self.place else { return Ok(()) };
        let manifest = Manifest {
            revision: self.revision.clone(),
            network: self.network.clone(),
            files: self.known.clone(),
        };
        cache::write(&self.folder, self.asked.as_deref(), &manifest)
    }

    async fn file_within(
        &mut self,
        name: &str,
        limit: Option<u64>,
        progress: &Progress,
    ) -> Result<PathBuf, SourceError> {
        let path = self.folder.join(name);
        let Place::Remote(remote) = &self.place else { return Ok(path) };
        if self.known.contains_key(name) {
            return Ok(path);
        }
        let taken = self.known.values().map(|known| known.size).sum();
        let room = self.access.limit.map(|limit| Room { limit, taken });
        let wanted = Wanted { remote, name, to: &path, limit, room, retry: self.access.retry, progress };
        let known = match fetch(&wanted).await? {
            Some(known) => known,
            // It was verified before it became visible, and only its hash is not known.
            None => hash(path.clone()).await?,
        };
        self.known.insert(name.to_owned(), known);
        Ok(path)
    }
}

fn cached(folder: PathBuf, asked: Option<&str>, access: &Access) -> Option<Snapshot> {
    let Manifest { revision, network, files } = cache::read(&folder, asked)?;
    tracing::info!(folder = %folder.display(), "the model is in the cache");
    let (access, asked) = (access.clone(), asked.map(ToOwned::to_owned));
    Some(Snapshot { revision, network, access, asked, folder, place: Place::Cache, known: files })
}

async fn hash(path: PathBuf) -> Result<Known, SourceError> {
    let hashing = path.clone();
    let known = tokio::task::spawn_blocking(move || cache::hash(&hashing)).await;
    known.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| SourceError::cache(path, e))
}

async fn resolve(
    hub: Hub,
    revision: &str,
    access: &Access,
    progress: &Progress,
) -> Result<(Place, Option<String>), SourceError> {
    progress.doing(format!("asking the hub for revision {revision}"));
    let (commit, files) = patiently(access.retry, async || hub.resolve(revision).await).await?;
    tracing::info!(revision, commit, files = files.len(), "found the model");
    let revision = Some(commit.clone());
    Ok((Place::Remote(Remote::Hub { hub, commit, files }), revision))
}

/// Lists a bucket as it is now, for it has no older state. If that is not the recorded one, the files may still be the
/// same (copied anew, or with others beside them): the digest will tell.
async fn list(
    bucket: &Bucket,
    recorded: Option<&str>,
    access: &Access,
    progress: &Progress,
) -> Result<(Place, Option<String>), SourceError> {
    progress.doing(format!("listing {bucket}"));
    let ask = async || Objects::list(bucket, &access.variables).await;
    let objects = patiently(access.retry, ask).await?;
    let revision = objects.revision();
    tracing::info!(%bucket, revision, files = objects.len(), "found the model");
    if let Some(recorded) = recorded.filter(|&recorded| recorded != revision) {
        tracing::warn!(%bucket, recorded, revision, "what lies there has changed since it was recorded");
    }
    Ok((Place::Remote(Remote::Objects(objects)), Some(revision)))
}

/// Asks until there is an answer.
async fn patiently<T>(
    retry: Retry,
    mut ask: impl AsyncFnMut() -> Result<T, SourceError>,
) -> Result<T, SourceError> {
    let mut failed = 0;
    loop {
        let error = match ask().await {
            Err(error) if error.may_pass() => error,
            done => return done,
        };
        failed += 1;
        let Some(wait) = retry.wait(failed) else { return Err(error) };
        tracing::warn!(%error, ?wait, "the source did not answer; trying again");
        tokio::time::sleep(wait).await;
    }
}

async fn network(
    place: &Place,
    folder: &Path,
    asked: Option<&str>,
    retry: Retry,
) -> Result<Network, SourceError> {
    for name in files::candidates(asked)? {
        // What comes later is of no interest, and looking costs a request each.
        if has(place, &BTreeMap::new(), folder, name, retry).await? {
            return Ok(files::network(asked, Some(name))?);
        }
    }
    Ok(files::network(asked, None)?)
}

async fn has(
    place: &Place,
    known: &BTreeMap<String, Known>,
    folder: &Path,
    name: &str,
    retry: Retry,
) -> Result<bool, SourceError> {
    match place {
        Place::Folder => Ok(folder.join(name).is_file()),
        Place::Cache => Ok(known.contains_key(name)),
        Place::Remote(remote) => patiently(retry, async || remote.has(name).await).await,
    }
}
