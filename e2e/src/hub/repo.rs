//! Which commit and file a request means, and whether this client may have it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::file::File;

/// The branch that a new repository has.
pub const MAIN: &str = "main";

/// The files of one commit by their path.
pub type Tree = BTreeMap<String, File>;

/// Who may read a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Who has this token; nobody else learns that it exists.
    Private {
        /// Begins with [`TOKEN_PREFIX`].
        token: String,
    },
    /// Who has this token; everybody else is told to ask for access.
    Gated {
        /// Begins with [`TOKEN_PREFIX`].
        token: String,
    },
}

/// How the token of any user begins; others are no tokens at all.
pub const TOKEN_PREFIX: &str = "hf_";

/// Why a request is refused. The words and codes are the hub's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token is nobody's.
    BadToken,
    /// There is no such repository, or the client may not know of it.
    RepoNotFound {
        /// Whether the client sent no token: it might see more with one.
        anonymous: bool,
    },
    /// The repository has no such branch, tag or commit.
    RevisionNotFound,
    /// The commit has no such file.
    EntryNotFound,
    /// Only those who were granted access may read it.
    Gated {
        /// As in [`Refusal::RepoNotFound`].
        anonymous: bool,
    },
}

/// All repositories by `org/name`.
#[derive(Debug, Default)]
pub struct Repos(BTreeMap<String, Repo>);

impl Repos {
    /// Adds a repository, or replaces the one of that name.
    pub fn insert(&mut self, id: String, repo: Repo) {
        self.0.insert(id, repo);
    }

    /// The repository, whoever asks.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Repo> {
        self.0.get_mut(id)
    }

    /// The repository, for a client with that token.
    pub fn find(&self, id: &str, token: Option<&str>) -> Result<&Repo, Refusal> {
        if token.is_some_and(|token| !token.starts_with(TOKEN_PREFIX)) {
            return Err(Refusal::BadToken);
        }
        let anonymous = token.is_none();
        let repo = self.0.get(id).ok_or(Refusal::RepoNotFound { anonymous })?;
        match &repo.access {
            Access::Private { token: right } if token != Some(right) => {
                Err(Refusal::RepoNotFound { anonymous })
            }
            Access::Gated { token: right } if token != Some(right) => Err(Refusal::Gated { anonymous }),
            _ => Ok(repo),
        }
    }

    /// The file with that SHA-256, of those that are kept apart from git.
    pub fn large(&self, sha256: &str) -> Option<&File> {
        let trees = self.0.values().flat_map(|repo| repo.commits.values());
        trees.flat_map(Tree::values).find(|file| file.large() && file.oid == sha256)
    }
}

/// One repository: commits, and the names that point to them.
#[derive(Clone, Debug)]
pub struct Repo {
    id: String,
    access: Access,
    branches: BTreeMap<String, String>,
    commits: BTreeMap<String, Tree>,
}

impl Repo {
    /// A repository whose [`MAIN`] holds these files.
    pub fn new(id: &str, access: Access, tree: Tree) -> Self {
        let mut repo =
            Self { id: id.to_owned(), access, branches: BTreeMap::new(), commits: BTreeMap::new() };
        repo.commit(MAIN, tree);
        repo
    }

    /// The commit and its files that a branch or a commit's own id means.
    pub fn revision(&self, name: &str) -> Result<(&str, &Tree), Refusal> {
        let sha = self.branches.get(name).map_or(name, String::as_str);
        self.commits
            .get_key_value(sha)
            .map(|(sha, tree)| (sha.as_str(), tree))
            .ok_or(Refusal::RevisionNotFound)
    }

    /// Puts these files over those of the branch (or [`MAIN`]'s if it is new) and moves the branch there. Returns the
    /// new commit.
    pub fn commit(&mut self, branch: &str, files: Tree) -> String {
        let parent = self.revision(branch).or_else(|_| self.revision(MAIN)).ok();
        let mut tree = parent.map(|(_, tree)| tree.clone()).unwrap_or_default();
        tree.extend(files);
        let mut hash = Sha1::new_with_prefix(format!("commit {} {}\n", self.id, self.commits.len()));
        for (path, file) in &tree {
            hash.update(format!("{path} {}\n", file.oid));
        }
        let sha = crate::hex::digits(&hash.finalize());
        self.commits.insert(sha.clone(), tree);
        self.branches.insert(branch.to_owned(), sha.clone());
        sha
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::from([("config.json".to_owned(), File::memory("config.json", text.to_owned()))])
    }

    fn repos(access: Access) -> Repos {
        let mut repos = Repos::default();
        repos.insert("a/b".to_owned(), Repo::new("a/b", access, tree("{}")));
        repos
    }

    #[test]
    fn a_branch_moves_and_its_old_commit_stays() {
        let mut repo = Repo::new("a/b", Access::Public, tree("old"));
        let old = repo.revision(MAIN).expect("main").0.to_owned();
        let new = repo.commit(MAIN, tree("new"));
        assert_ne!(old, new);
        assert_eq!(repo.revision(MAIN).expect("main").0, new);
        assert_ne!(repo.revision(&old).expect("a commit is a revision").1["config.json"].oid, {
            repo.revision(&new).expect("so is the new one").1["config.json"].oid.clone()
        });
        assert_eq!(repo.revision("nope").err(), Some(Refusal::RevisionNotFound));
    }

    #[test]
    fn a_commit_keeps_the_files_that_it_does_not_touch() {
        let mut repo = Repo::new("a/b", Access::Public, tree("{}"));
        repo.commit(MAIN, Tree::from([("more".to_owned(), File::memory("more", "x".to_owned()))]));
        let (_, tree) = repo.revision(MAIN).expect("main");
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["config.json", "more"]);
    }

    #[test]
    fn who_may_read() {
        let (right, other, none) = (Some("hf_right"), Some("hf_other"), None::<&str>);
        let token = || "hf_right".to_owned();
        let table = [
            (Access::Public, none, None),
            (Access::Public, other, None),
            (Access::Public, Some("nonsense"), Some(Refusal::BadToken)),
            (Access::Private { token: token() }, right, None),
            (Access::Private { token: token() }, other, Some(Refusal::RepoNotFound { anonymous: false })),
            (Access::Private { token: token() }, none, Some(Refusal::RepoNotFound { anonymous: true })),
            (Access::Gated { token: token() }, right, None),
            (Access::Gated { token: token() }, other, Some(Refusal::Gated { anonymous: false })),
            (Access::Gated { token: token() }, none, Some(Refusal::Gated { anonymous: true })),
        ];
        for (access, client, refusal) in table {
            let got = repos(access.clone()).find("a/b", client).err();
            assert_eq!(got, refusal, "{access:?} for {client:?}");
        }
        let missing = repos(Access::Public).find("a/c", none).err();
        assert_eq!(missing, Some(Refusal::RepoNotFound { anonymous: true }));
    }
}
