//! Bodies that the gateway holds in memory, bounded one by one and in sum.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// A body that counts as held until the last reference to any of it is gone.
struct Held {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
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
        let (mut bytes, mut held) = (Vec::new(), None);
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

    fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BufferError> {
        let bytes = u32::try_from(bytes).map_err(|_| BufferError::Full)?;
        self.room.clone().try_acquire_many_owned(bytes).map_err(|_| BufferError::Full)
    }
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}
