//! What is known of a model's files in the cache: written once all of them are there.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{Location, SourceError};
use crate::model::{
    digest::{hex, sha256},
    files::{Network, is_plain},
};

/// The files of one model at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The immutable revision, where the source has one.
    pub(super) revision: Option<String>,
    /// The file of the network.
    pub(super) network: Network,
    /// What is known of each file.
    pub(super) files: BTreeMap<String, Known>,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Of its content, in hexadecimal.
    pub(super) sha256: String,
    /// Bytes.
    pub(super) size: u64,
}

/// The folder of a model at a revision: readable for what comes from a hub, a hash for what comes from elsewhere.
/// What was begun in it goes on only with the same revision, so that two states of a source never mix in a file; a web
/// server, which has none, is seen to by [`super::web`].
pub(super) fn folder(cache: &Path, location: &Location, revision: Option<&str>) -> PathBuf {
    match location {
        Location::Hub { repository, .. } => {
            cache.join("hf").join(repository.replace('/', "--")).join(revision.unwrap_or("unknown"))
        }
        Location::Web(url) => cache.join("web").join(&sha256(url.as_bytes())[..32]),
        Location::Objects(bucket) => cache
            .join(bucket.store.scheme())
            .join(&sha256(bucket.to_string().as_bytes())[..32])
            .join(revision.unwrap_or("unknown")),
        Location::Folder(folder) => folder.clone(),
    }
}

/// The manifest's place: one for each network that was asked for, as it decides which files are needed.
fn place(folder: &Path, asked: Option<&str>) -> PathBuf {
    folder.join(format!("kembed-{}.json", asked.unwrap_or("auto").replace('/', "--")))
}

/// Reads a manifest whose files are all still there.
pub(super) fn read(folder: &Path, asked: Option<&str>) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(place(folder, asked)).ok()?).ok()?;
    let whole = manifest.files.iter().all(|(name, known)| {
        is_plain(name) && fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == known.size)
    });
    whole.then_some(manifest)
}

/// Writes a manifest, visible at once or not at all.
pub(super) fn write(folder: &Path, asked: Option<&str>, manifest: &Manifest) -> Result<(), SourceError> {
    let place = place(folder, asked);
    let part = place.with_extension(format!("{}.part", std::process::id()));
    let text = serde_json::to_vec_pretty(manifest).expect("strings and numbers serialise");
    fs::write(&part, text).and_then(|()| fs::rename(&part, &place)).map_err(|e| SourceError::cache(&place, e))
}

/// Hashes a file that is on this machine. Takes time in proportion to its size: not for async threads.
pub(super) fn hash(path: &Path) -> io::Result<Known> {
    let (mut file, mut context) = (fs::File::open(path)?, Context::new(&SHA256));
    let (mut buffer, mut size) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Known { sha256: hex(context.finish().as_ref()), size }),
            Ok(read) => {
                context.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let known = Known { sha256: sha256(b"{}"), size: 2 };
        Manifest {
            revision: Some("abc".into()),
            network: Network::Safetensors("model.safetensors".into()),
            files: BTreeMap::from([("config.json".into(), known)]),
        }
    }

    #[test]
    fn a_manifest_counts_while_its_files_are_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), None, &manifest()).expect("it can be written");
        assert_eq!(read(folder.path(), None), None);
        fs::write(folder.path().join("config.json"), "{}").expect("it can be written");
        assert_eq!(read(folder.path(), None), Some(manifest()));
        assert_eq!(read(folder.path(), Some("onnx/model.onnx")), None);
        assert_eq!(
            hash(&folder.path().join("config.json")).ok().as_ref(),
            manifest().files.get("config.json")
        );
        fs::write(folder.path().join("config.json"), "{").expect("it can be written");
        assert_eq!(read(folder.path(), None), None);
    }

    #[test]
    fn models_and_revisions_lie_apart() {
        let hub = |repository: &str| Location::Hub { repository: repository.into(), revision: "main".into() };
        let at = |location: &Location, revision| folder("/c".as_ref(), location, revision);
        assert_eq!(at(&hub("a/b"), Some("1")), Path::new("/c/hf/a--b/1"));
        assert_ne!(at(&hub("a/b"), Some("1")), at(&hub("a/b"), Some("2")));
        let objects = |word| Location::parse(word).expect("a good word");
        assert_ne!(at(&objects("s3://a/b"), Some("1")), at(&objects("s3://a/c"), Some("1")));
        assert_ne!(at(&objects("s3://a/b"), Some("1")), at(&objects("gs://a/b"), Some("1")));
        assert_ne!(at(&objects("s3://a/b"), Some("1")), at(&objects("s3://a/b"), Some("2")));
        assert_ne!(
            at(&Location::Web("http://a/".into()), None),
            at(&Location::Web("http://b/".into()), None)
        );
    }
}
