//! Whether what came is what the source has.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::model::digest::hex;

/// What a source tells about a file beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// SHA-256 of the content, in hexadecimal.
    Sha256(String),
    /// SHA-1 of the content as git hashes it: behind its length.
    GitBlob(String),
    /// Nothing.
    #[default]
    None,
}

impl Check {
    /// Reads an ETag: a hub gives 40 digits for a file that lies in git and 64 for one that does not.
    pub fn from_etag(etag: &str) -> Self {
        let etag = bare(etag);
        match etag.len() {
            _ if !etag.bytes().all(|b| b.is_ascii_hexdigit()) => Self::None,
            64 => Self::Sha256(etag.to_ascii_lowercase()),
            40 => Self::GitBlob(etag.to_ascii_lowercase()),
            _ => Self::None,
        }
    }
}

/// An ETag without what may stand around it: the mark of a weak one, and quotes.
pub(super) fn bare(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// Hashes a file while it comes.
pub struct Hasher {
    sha256: Context,
    git: Context,
    check: Check,
    length: u64,
}

impl Hasher {
    /// Begins with the length that the file will have.
    pub fn new(check: Check, length: u64) -> Self {
        // Git's hash is the hub's choice; it guards against damage here, not against forgery.
        let mut git = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        git.update(format!("blob {length}\0").as_bytes());
        Self { sha256: Context::new(&SHA256), git, check, length: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.sha256.update(bytes);
        if matches!(self.check, Check::GitBlob(_)) {
            self.git.update(bytes);
        }
    }

    /// Bytes taken.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The SHA-256 of it all, in hexadecimal.
    ///
    /// # Errors
    /// If the source has another file: what it told, and what came.
    pub fn finish(self) -> Result<String, (String, String)> {
        let sha256 = hex(self.sha256.finish().as_ref());
        let (told, came) = match self.check {
            Check::None => return Ok(sha256),
            Check::Sha256(told) => (told, sha256.clone()),
            Check::GitBlob(told) => (told, hex(self.git.finish().as_ref())),
        };
        if told == came { Ok(sha256) } else { Err((told, came)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | git hash-object --stdin`
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    /// `printf 'hello\n' | sha256sum`
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn finish(etag: &str) -> Result<String, (String, String)> {
        let mut hasher = Hasher::new(Check::from_etag(etag), 6);
        hasher.update(b"hel");
        hasher.update(b"lo\n");
        assert_eq!(hasher.length(), 6);
        hasher.finish()
    }

    #[test]
    fn etags_are_checked_where_they_are_hashes() {
        for etag in
            [format!("\"{GIT}\""), format!("\"{SHA256}\""), SHA256.into(), "W/\"5-abc\"".into(), "".into()]
        {
            assert_eq!(finish(&etag).as_deref(), Ok(SHA256), "{etag}");
        }
    }

    #[test]
    fn another_file_is_noticed() {
        assert_eq!(finish(&GIT.replace('c', "d")).map_err(|(_, came)| came), Err(GIT.into()));
        assert_eq!(finish(&SHA256.replace('5', "6")).map_err(|(_, came)| came), Err(SHA256.into()));
    }
}
