//! Names of headers as they are looked up: a name that is a text is read and hashed each time.

use http::HeaderName;
use kembed_queue::{
    credit::{GRANTED_HEADER, NO_CREDIT_HEADER, POD_LOAD_HEADER},
    wire::{
        DEADLINE_HEADER, LANE_HEADER, NOT_READY_HEADER, REVISION_HEADER, SHOULD_RETRY_HEADER, SPACE_HEADER,
    },
};

use super::hop::{ENDING_HEADER, FORWARDED_HEADER, HISTORY_HEADER, MOVED_HEADER, WAITED_HEADER};

/// See [`DEADLINE_HEADER`].
pub static DEADLINE: HeaderName = HeaderName::from_static(DEADLINE_HEADER);

/// See [`ENDING_HEADER`].
pub static ENDING: HeaderName = HeaderName::from_static(ENDING_HEADER);

/// See [`FORWARDED_HEADER`].
pub static FORWARDED: HeaderName = HeaderName::from_static(FORWARDED_HEADER);

/// See [`GRANTED_HEADER`].
pub static GRANTED: HeaderName = HeaderName::from_static(GRANTED_HEADER);

/// See [`HISTORY_HEADER`].
pub static HISTORY: HeaderName = HeaderName::from_static(HISTORY_HEADER);

/// See [`LANE_HEADER`].
pub static LANE: HeaderName = HeaderName::from_static(LANE_HEADER);

/// See [`MOVED_HEADER`].
pub static MOVED: HeaderName = HeaderName::from_static(MOVED_HEADER);

/// See [`NO_CREDIT_HEADER`].
pub static NO_CREDIT: HeaderName = HeaderName::from_static(NO_CREDIT_HEADER);

/// See [`NOT_READY_HEADER`].
pub static NOT_READY: HeaderName = HeaderName::from_static(NOT_READY_HEADER);

/// See [`POD_LOAD_HEADER`].
pub static POD_LOAD: HeaderName = HeaderName::from_static(POD_LOAD_HEADER);

/// See [`REVISION_HEADER`].
pub static REVISION: HeaderName = HeaderName::from_static(REVISION_HEADER);

/// See [`SHOULD_RETRY_HEADER`].
pub static SHOULD_RETRY: HeaderName = HeaderName::from_static(SHOULD_RETRY_HEADER);

/// See [`SPACE_HEADER`].
pub static SPACE: HeaderName = HeaderName::from_static(SPACE_HEADER);

/// See [`WAITED_HEADER`].
pub static WAITED: HeaderName = HeaderName::from_static(WAITED_HEADER);
