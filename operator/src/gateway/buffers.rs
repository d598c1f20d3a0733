//! Bodies that the gateway holds in memory, bounded one by one and in sum.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a body is given before any of it has come: what comes in one piece, as a rule.
const FIRST: usize = 4096;

/// Reads bodies as long as there is room.
#[derive(Clone, Debug)]
pub struct Buffers {
    /// Bytes of one body.
    each: usize,
    /// A permit for each byte that may still be held.
    room: Arc<Semaphore>,
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// It has more bytes than this.
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    /// All bodies together would.
    #[error("no room for a body")]
    Full,
    /// The client's side of it failed.
    #[error("failed to read the client's body")]
    Broken(#[source] hyper::Error),
}

/// Room for some bytes, as long as this is there.
pub type Room = OwnedSemaphorePermit;

/// A body that counts as held until the last reference to any of it is gone.
struct Held {
    bytes: Vec<u8>,
    _room: Option<Room>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Buffers {
    /// For bodies of `each` bytes at most, and of `all` together.
    pub fn new(each: usize, all: usize) -> Self {
        Self { each, room: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))) }
    }

    /// Reads a body whole. Only what has come takes room: a client that announces much and sends little keeps nobody
    /// else out.
    ///
    /// # Errors
    /// If it is too large, or breaks off.
    pub async fn read(&self, mut body: Incoming) -> Result<Bytes, BufferError> {
        if body.size_hint().lower() > self.each as u64 {
            return Err(BufferError::TooLarge(self.each));
        }
        let expected = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let (mut bytes, mut held) = (Vec::with_capacity(expected.unwrap_or(0).min(FIRST)), None);
        while let Some(frame) = body.frame().await {
            // Trailers say nothing that a pod reads.
            let Ok(data) = frame.map_err(BufferError::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > self.each {
                return Err(BufferError::TooLarge(self.each));
            }
            merge(&mut held, self.hold(data.len())?);
            bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(Held { bytes, _room: held }))
    }

    /// Takes room for the first bytes of a body that will be read later, if it is not too large.
    ///
    /// # Errors
    /// If it is, or there is no room.
    pub fn room_for(&self, all: usize, first: usize) -> Result<Room, BufferError> {
        if all > self.each { Err(BufferError::TooLarge(self.each)) } else { self.hold(first) }
    }

    /// Waits for room for so many bytes more. Who has waited longest gets it first, and all of it at once.
    ///
    /// # Errors
    /// If there never is so much.
    pub async fn more_room(&self, mut room: Room, bytes: usize) -> Result<Room, BufferError> {
        let bytes = u32::try_from(bytes).map_err(|_| BufferError::Full)?;
        let more = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| BufferError::Full)?;
        room.merge(more);
        Ok(room)
    }

    /// Reads a body of so many bytes, for which there is room.
    ///
    /// # Errors
    /// If it has more, or breaks off.
    pub async fn read_into(mut body: Incoming, all: usize, room: Room) -> Result<Bytes, BufferError> {
        let mut bytes = Vec::with_capacity(all);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(BufferError::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > all {
                return Err(BufferError::TooLarge(all));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(Held { bytes, _room: Some(room) }))
    }

    fn hold(&self, bytes: usize) -> Result<Room, BufferError> {
        let bytes = u32::try_from(bytes).map_err(|_| BufferError::Full)?;
        self.room.clone().try_acquire_many_owned(bytes).map_err(|_| BufferError::Full)
    }
}

fn merge(held: &mut Option<Room>, more: Room) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}
