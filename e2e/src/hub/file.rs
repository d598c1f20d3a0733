//! The files of a model and the names that the hub gives their content.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::repo::{Access, Repo, Repos, Tree};
use crate::hex;

/// Extensions that the hub keeps in large-file storage, as its `.gitattributes` say.
const LARGE: [&str; 5] = ["safetensors", "onnx", "onnx_data", "bin", "model"];

/// Where the bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file.
    Disk(PathBuf),
    /// Given by a test.
    Memory(String),
}

/// One file of a commit.
#[derive(Clone, Debug)]
pub struct File {
    /// Its bytes.
    pub content: Content,
    /// How many.
    pub size: u64,
    /// 64 hexadecimal digits of SHA-256 for a large file, else the 40 by which git calls the content.
    pub oid: String,
}

impl File {
    /// A file from a test.
    pub fn memory(path: &str, text: String) -> Self {
        let (size, oid) = (text.len() as u64, oid(path, text.as_bytes()));
        Self { content: Content::Memory(text), size, oid }
    }

    /// Whether it is kept in large-file storage: then the hub redirects to it.
    pub fn large(&self) -> bool {
        self.oid.len() == 64
    }
}

/// Every `root/<org>/<name>` as a repository.
///
/// # Errors
/// If a directory or file there cannot be read.
pub fn scan(root: &Path) -> io::Result<Repos> {
    let mut repos = Repos::default();
    for org in entries(root)? {
        for repo in entries(&org)? {
            let id = format!("{}/{}", name(&org), name(&repo));
            let mut tree = Tree::new();
            walk(&repo, "", &mut tree)?;
            repos.insert(id.clone(), Repo::new(&id, Access::Public, tree));
        }
    }
    Ok(repos)
}

fn walk(dir: &Path, prefix: &str, tree: &mut Tree) -> io::Result<()> {
    for entry in entries(dir)? {
        let path = format!("{prefix}{}", name(&entry));
        if entry.is_dir() {
            walk(&entry, &format!("{path}/"), tree)?;
            continue;
        }
        let bytes = fs::read(&entry)?;
        let file = File { size: bytes.len() as u64, oid: oid(&path, &bytes), content: Content::Disk(entry) };
        tree.insert(path, file);
    }
    Ok(())
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn oid(path: &str, bytes: &[u8]) -> String {
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    if LARGE.contains(&extension) {
        return hex::digits(&Sha256::digest(bytes));
    }
    hex::digits(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_git_and_of_large_file_storage() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`
        assert_eq!(File::memory("a.json", "hello".into()).oid, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0");
        let large = File::memory("a.safetensors", "hello".into());
        assert_eq!(large.oid, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert!(large.large());
    }

    #[test]
    fn a_directory_becomes_a_repository() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("org/name/1_Pooling");
        fs::create_dir_all(&dir).expect("directories");
        fs::write(dir.join("config.json"), "{}").expect("a file");
        let repos = scan(root.path()).expect("the files are readable");
        let (_, tree) =
            repos.find("org/name", None).and_then(|repo| repo.revision("main")).expect("it is there");
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["1_Pooling/config.json"]);
    }
}
