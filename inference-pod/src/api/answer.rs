//! A good answer. It counts as in hand until it is written: what a slow client has yet to read takes memory.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use http_body::{Frame, SizeHint};
use kembed_queue::wire::SPACE_HEADER;
use serde::Serialize;

use super::{ApiError, aside::aside};
use crate::{
    engine::EmbedError,
    in_hand::Held,
    pod::{Pod, Serving},
};

/// Bytes that are handed over at once. The server takes more only when these are on their way.
const PIECE: usize = 64 * 1024;

/// Writes an answer as JSON.
///
/// # Errors
/// If it cannot be written as such.
pub(super) fn json(pod: &Pod, answer: &impl Serialize, held: Held) -> Result<Response, ApiError> {
    let (start, effort) = (Instant::now(), held.effort);
    let written = aside(held.bytes(), || serde_json::to_vec(answer));
    let rest = Bytes::from(written.map_err(|_| EmbedError::Failed)?);
    pod.metrics.serialise.observe(start.elapsed().as_secs_f64());
    let mut response = Response::new(Body::new(Answer { rest, _held: held }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(timing) = HeaderValue::try_from(effort.server_timing()) {
        headers.insert("server-timing", timing);
    }
    response.extensions_mut().insert(effort);
    Ok(response)
}

/// The same, and names the space that the answer belongs to.
///
/// # Errors
/// As [`json`].
pub(super) fn in_space(
    pod: &Pod,
    serving: &Serving,
    answer: &impl Serialize,
    held: Held,
) -> Result<Response, ApiError> {
    Ok(([(SPACE_HEADER, serving.space.digest.as_str())], json(pod, answer, held)?).into_response())
}

struct Answer {
    rest: Bytes,
    _held: Held,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = &mut self.get_mut().rest;
        if rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = rest.split_to(rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
