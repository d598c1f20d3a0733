//! The body of a request for vectors at the gateway that owns its service. A short one is here from the beginning; a long
//! one that another gateway forwarded stays there until a pod may have it, but for its first [`OFFERED`] bytes.
//!
//! Nobody says so: HTTP/2 lets the other gateway send no more than that before somebody here reads it.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::{
    buffers::{BufferError, Buffers, Room},
    link::OFFERED,
    refusal::Refusal,
    within::within,
};

/// A body that another gateway has.
#[derive(Debug)]
pub struct Offer {
    body: Incoming,
    bytes: usize,
    limit: Duration,
    buffers: Buffers,
    /// For what has come of it.
    room: Room,
}

/// Takes in a body that another gateway forwards: reads it, unless leaving it there saves room. It may take `limit` to come,
/// now or later.
///
/// # Errors
/// If it is too large, does not come, or there is no room.
pub async fn take_in(
    body: Incoming,
    buffers: &Buffers,
    limit: Duration,
) -> Result<(Bytes, Option<Box<Offer>>), Refusal> {
    let long = body.size_hint().exact().filter(|bytes| *bytes > u64::from(OFFERED));
    let Some(bytes) = long.and_then(|bytes| usize::try_from(bytes).ok()) else {
        return Ok((read(body, buffers, limit).await?, None));
    };
    let room = buffers.room_for(bytes, OFFERED as usize).map_err(refusal)?;
    let offer = Offer { body, bytes, limit, buffers: buffers.clone(), room };
    Ok((Bytes::new(), Some(Box::new(offer))))
}

/// Reads a body that is sent on only when all of it is there.
///
/// # Errors
/// If it is too large, does not come within `limit`, or there is no room.
pub async fn read(body: Incoming, buffers: &Buffers, limit: Duration) -> Result<Bytes, Refusal> {
    let read = within(limit, buffers.read(body)).await.map_err(|_| Refusal::SlowBody { limit })?;
    read.map_err(refusal)
}

impl Offer {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has all of it come. In a box, for few requests need it, and each would have room for it.
    ///
    /// # Errors
    /// If it does not, or there is no room for so long. Whoever was let in waits for room: what pods are done with makes some.
    pub fn fetch(self) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let Self { body, bytes, limit, buffers, room } = self;
        let read = async move {
            let room = buffers.more_room(room, bytes - OFFERED as usize).await?;
            Buffers::read_into(body, bytes, room).await
        };
        async move {
            let read = timeout(limit, read).await.map_err(|_| Refusal::SlowBody { limit })?;
            read.map_err(refusal)
        }
        .boxed()
    }
}

fn refusal(error: BufferError) -> Refusal {
    match error {
        BufferError::TooLarge(limit) => Refusal::BodyTooLarge { limit },
        BufferError::Full => Refusal::Overloaded,
        BufferError::Broken(_) => Refusal::BrokenBody,
    }
}
