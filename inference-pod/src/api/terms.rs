//! What a client says beside its request: how long it waits, and whether anybody waits at all.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use kembed_queue::wire::{DEADLINE_HEADER, LANE_HEADER, Lane};

use super::ApiError;
use crate::engine::Terms;

/// The terms of a request that comes now.
///
/// # Errors
/// If a header says nothing that is known.
pub(super) fn terms(headers: &HeaderMap) -> Result<Terms, ApiError> {
    let deadline = patience(headers)?.map(|patience| Instant::now() + patience);
    Ok(Terms { lane: lane(headers)?, deadline })
}

/// The lane of a request.
///
/// # Errors
/// If the header names none.
pub(super) fn lane(headers: &HeaderMap) -> Result<Lane, ApiError> {
    let Some(value) = headers.get(LANE_HEADER) else { return Ok(Lane::default()) };
    let lane = value.to_str().ok().and_then(Lane::parse);
    lane.ok_or_else(|| ApiError::bad_request(format!("{LANE_HEADER} is interactive or bulk")))
}

/// How long the client waits for the answer, if it says so.
///
/// # Errors
/// If the header is no number of milliseconds, or zero.
pub(super) fn patience(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get(DEADLINE_HEADER) else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|value| value.parse().ok()).filter(|&millis: &u32| millis > 0);
    millis.map(|millis| Some(Duration::from_millis(millis.into()))).ok_or_else(|| {
        ApiError::bad_request(format!("{DEADLINE_HEADER} is a number of milliseconds, 1 or more"))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))])
    }

    #[test]
    fn without_headers_a_client_waits_as_long_as_the_pod() {
        assert_eq!(lane(&HeaderMap::new()), Ok(Lane::Interactive));
        assert_eq!(patience(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn headers_are_read_strictly() {
        assert_eq!(lane(&headers(LANE_HEADER, "bulk")), Ok(Lane::Bulk));
        assert_eq!(patience(&headers(DEADLINE_HEADER, "1500")), Ok(Some(Duration::from_millis(1500))));
        for value in ["", "Bulk", "fast"] {
            assert!(lane(&headers(LANE_HEADER, value)).is_err(), "{value}");
        }
        for value in ["", "0", "-1", "1.5", "1s", "99999999999"] {
            assert!(patience(&headers(DEADLINE_HEADER, value)).is_err(), "{value}");
        }
    }
}
