//! A request's body, within a limit.

use axum::{
    body::{Body, Bytes, HttpBody},
    http::HeaderMap,
};
use http_body_util::BodyExt;

use super::{ApiError, terms::terms};
use crate::{
    engine::{EmbedError, Terms},
    in_hand::Held,
    pod::{Pod, Serving},
};

/// Bytes that are read of a body that is too large, and thrown away: a client that is still sending would not see
/// why it is refused.
const DRAINED: usize = 64 << 20;

/// Times that a body is in memory: as it came, and as it is read.
const COPIES: usize = 2;

/// A request that leads to the network, in hand.
pub(super) struct Received<'a> {
    pub(super) terms: Terms,
    pub(super) serving: &'a Serving,
    pub(super) held: Held,
    pub(super) bytes: Bytes,
}

/// Takes a request in hand, if the pod serves and has room, and reads its body.
///
/// # Errors
/// If its terms mean nothing, the pod does not serve, or as [`read`].
pub(super) async fn receive<'a>(
    pod: &'a Pod,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received<'a>, ApiError> {
    let terms = terms(headers)?;
    let serving = pod.serving().map_err(ApiError::not_ready)?;
    let mut held = serving.engine.admit()?;
    let bytes = read(body, pod.limits.body, &mut held).await?;
    Ok(Received { terms, serving, held, bytes })
}

/// Reads a body.
///
/// # Errors
/// If it has more than `limit` bytes, or breaks off, or there is no room for it now.
pub(super) async fn read(mut body: Body, limit: usize, held: &mut Held) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let room = held.grow(COPIES * announced.map_or(limit, |bytes| bytes.min(limit)));
    let room_for = if room.is_ok() { limit } else { 0 };
    let (mut kept, mut total) = (Vec::new(), 0);
    while total <= DRAINED {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|_| ApiError::bad_request("the body broke off"))?;
        // What is no data is a trailer, which nobody wants.
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total <= room_for {
            kept.extend_from_slice(&data);
        } else {
            kept = Vec::new();
        }
    }
    if total > limit {
        return Err(ApiError::too_large(limit));
    }
    room.map_err(EmbedError::from)?;
    Ok(kept.into())
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::in_hand::InHand;

    async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
        let mut held = InHand::new(1, 1 << 20).take().expect("room");
        super::read(body, limit, &mut held).await
    }

    fn pieces(count: usize, size: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, std::io::Error>(vec![b'a'; size]))))
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_whole() {
        assert_eq!(read(pieces(5, 2), 10).await, Ok(Bytes::from_static(b"aaaaaaaaaa")));
        assert_eq!(read(Body::empty(), 10).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn a_larger_one_is_read_and_refused() {
        assert_eq!(read(pieces(6, 2), 10).await, Err(ApiError::too_large(10)));
        // One without an end is not read to it.
        let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'a'; 1 << 20])));
        assert_eq!(read(endless, 10).await, Err(ApiError::too_large(10)));
    }

    #[tokio::test]
    async fn one_without_room_is_told_so() {
        let mut held = InHand::new(1, 10_000).take().expect("room");
        assert_eq!(
            super::read(Body::from(vec![b'a'; 4000]), 9000, &mut held).await.map(|b| b.len()),
            Ok(4000)
        );
        let refused = super::read(Body::from(vec![b'a'; 4000]), 9000, &mut held).await;
        assert_eq!(refused, Err(EmbedError::Busy(crate::in_hand::Busy).into()));
    }

    #[tokio::test]
    async fn one_that_breaks_off_is_refused() {
        let broken = stream::iter([Ok(vec![b'a']), Err(std::io::Error::other("gone"))]);
        let refused = read(Body::from_stream(broken), 10).await;
        assert_eq!(refused, Err(ApiError::bad_request("the body broke off")));
    }
}
