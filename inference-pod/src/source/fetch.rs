//! One file from a distant source into the cache. It becomes visible by one rename, whole and verified. What came
//! before an interruption is kept and gone on from, and of two pods that share a cache one fetches and the other
//! waits.

use std::{
    fs::{OpenOptions, TryLockError},
    io::SeekFrom,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::TryStreamExt;
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    time::sleep,
};

use super::{
    Retry, SourceError,
    cache::Known,
    check::{Check, Hasher},
    progress::Progress,
    remote::{Opened, Remote},
};

/// Between two looks at a file that another pod fetches.
const LOOK: Duration = Duration::from_millis(500);

/// One file that is wanted.
pub(super) struct Wanted<'a> {
    pub(super) remote: &'a Remote,
    pub(super) name: &'a str,
    pub(super) to: &'a Path,
    /// Bytes that it may have.
    pub(super) limit: Option<u64>,
    /// What the cache may hold, if that is limited.
    pub(super) room: Option<Room>,
    pub(super) retry: Retry,
    pub(super) progress: &'a Progress,
}

/// How much a model may take in the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of all its files.
    pub(super) limit: u64,
    /// Bytes of those that are there.
    pub(super) taken: u64,
}

/// Fetches a file. If another pod did so meanwhile, nothing is known of it: `None`.
pub(super) async fn fetch(wanted: &Wanted<'_>) -> Result<Option<Known>, SourceError> {
    let folder = wanted.to.parent().unwrap_or(wanted.to);
    fs::create_dir_all(folder).await.map_err(|e| SourceError::cache(folder, e))?;
    let part = part_of(wanted.to);
    let Some(mut file) = claim(wanted, &part).await? else { return Ok(None) };
    let known = persist(wanted, &mut file).await?;
    file.sync_all().await.map_err(|e| SourceError::cache(&part, e))?;
    fs::rename(&part, wanted.to).await.map_err(|e| SourceError::cache(wanted.to, e))?;
    Ok(Some(known))
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// Opens the unfinished file and locks it; `None` if the finished one is there by then. The kernel frees the lock when
/// its owner dies. Nobody removes an unfinished file, so that a lock is always on the file that the name names.
async fn claim(wanted: &Wanted<'_>, part: &Path) -> Result<Option<File>, SourceError> {
    loop {
        if fs::try_exists(wanted.to).await.unwrap_or(false) {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part);
        let file = file.map_err(|e| SourceError::cache(part, e))?;
        match file.try_lock() {
            // The owner before may have renamed the file between our opening and locking it.
            Ok(()) if fs::try_exists(wanted.to).await.unwrap_or(false) => return Ok(None),
            Ok(()) => return Ok(Some(File::from_std(file))),
            Err(TryLockError::WouldBlock) => {
                wanted.progress.doing(format!("waiting for another pod to fetch {}", wanted.name));
                sleep(LOOK).await;
            }
            Err(TryLockError::Error(error)) => return Err(SourceError::cache(part, error)),
        }
    }
}

/// Tries until the file is whole. Tries without progress are counted; one with progress begins the count anew.
async fn persist(wanted: &Wanted<'_>, file: &mut File) -> Result<Known, SourceError> {
    let mut failed = 0;
    loop {
        let before = length(wanted, file).await?;
        let error = match attempt(wanted, file, before).await {
            Ok(known) => return Ok(known),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        if matches!(error, SourceError::Damaged { .. }) {
            file.set_len(0).await.map_err(|e| SourceError::cache(wanted.to, e))?;
        } else if length(wanted, file).await? > before {
            failed = 0;
        }
        failed += 1;
        let Some(wait) = wanted.retry.wait(failed) else { return Err(error) };
        tracing::warn!(file = wanted.name, %error, ?wait, "failed to fetch; trying again");
        sleep(wait).await;
    }
}

async fn length(wanted: &Wanted<'_>, file: &File) -> Result<u64, SourceError> {
    Ok(file.metadata().await.map_err(|e| SourceError::cache(wanted.to, e))?.len())
}

async fn attempt(wanted: &Wanted<'_>, file: &mut File, have: u64) -> Result<Known, SourceError> {
    let Opened { at, total, check, body } = wanted.remote.open(wanted.name, have).await?;
    // A body that begins elsewhere than asked for is one from the beginning; anything else is no use.
    let begin = if at == have { have } else { 0 };
    let Some(mut body) = body.filter(|_| at == begin) else {
        // The unfinished file is longer than the source's, or of another one.
        return Err(damaged(wanted, "another file", format!("{have} bytes")));
    };
    let disk = |e| SourceError::cache(wanted.to, e);
    let mut hasher = Hasher::new(check_of(&check, total), total.unwrap_or(0));
    file.seek(SeekFrom::Start(0)).await.map_err(disk)?;
    rehash(file, &mut hasher, begin).await.map_err(disk)?;
    file.set_len(begin).await.map_err(disk)?;
    within(wanted, total.unwrap_or(0))?;
    wanted.progress.begin(wanted.name, begin, total.unwrap_or(0));
    while let Some(piece) = body.try_next().await? {
        within(wanted, hasher.length() + piece.len() as u64)?;
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(disk)?;
        file.flush().await.map_err(disk)?;
        wanted.progress.came(piece.len());
    }
    let size = hasher.length();
    if let Some(total) = total.filter(|&total| total != size) {
        let error = format!("{} broke off after {size} of {total} bytes", wanted.name);
        return Err(if size < total {
            SourceError::Unreachable(error)
        } else {
            damaged(wanted, total, size)
        });
    }
    let sha256 = hasher.finish().map_err(|(told, came)| damaged(wanted, told, came))?;
    Ok(Known { sha256, size })
}

/// Git's hash needs the length beforehand.
fn check_of(check: &Check, total: Option<u64>) -> Check {
    match check {
        Check::GitBlob(_) if total.is_none() => Check::None,
        check => check.clone(),
    }
}

fn damaged(wanted: &Wanted<'_>, told: impl ToString, came: impl ToString) -> SourceError {
    SourceError::Damaged { file: wanted.name.to_owned(), told: told.to_string(), came: came.to_string() }
}

fn within(wanted: &Wanted<'_>, bytes: u64) -> Result<(), SourceError> {
    let file = || wanted.name.to_owned();
    if let Some(limit) = wanted.limit.filter(|&limit| bytes > limit) {
        return Err(SourceError::TooLarge { file: file(), limit });
    }
    let Some(Room { limit, taken }) = wanted.room else { return Ok(()) };
    let needed = taken.saturating_add(bytes);
    if needed > limit { Err(SourceError::OverLimit { file: file(), limit, needed }) } else { Ok(()) }
}

/// Hashes the first `bytes` of a file, and leaves it there.
async fn rehash(file: &mut File, hasher: &mut Hasher, bytes: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while hasher.length() < bytes {
        let most = buffer.len().min((bytes - hasher.length()) as usize);
        match file.read(&mut buffer[..most]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(())
}
