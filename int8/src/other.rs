//! In place of `x86.rs`, for processors of other families.

use super::{Factor, rows::Rows};

/// No processor of another family is known to have a faster way.
pub(super) fn multiply(_: &[f32], _: &[Factor], _: &mut Rows, _: &mut [&mut [f32]]) -> bool {
    false
}

pub(super) fn has_vnni() -> bool {
    false
}
