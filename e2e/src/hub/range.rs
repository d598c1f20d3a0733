//! The `Range` header of a download that goes on where it stopped.

/// Which bytes to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// All of them: none were asked for, or in a form that a server may ignore.
    All,
    /// From the first to the last, both included.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// There are none there.
    Unsatisfiable,
}

impl Range {
    /// Reads a `Range` header for a file of that many bytes. Several ranges in one header are ignored.
    pub fn parse(header: Option<&str>, size: u64) -> Self {
        let Some((first, last)) =
            header.and_then(|h| h.strip_prefix("bytes=")).and_then(|h| h.split_once('-'))
        else {
            return Self::All;
        };
        let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last),
            (Ok(first), Err(_)) if last.is_empty() => (first, u64::MAX),
            (Err(_), Ok(0)) if first.is_empty() => return Self::Unsatisfiable,
            (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), u64::MAX),
            _ => return Self::All,
        };
        if first >= size {
            return Self::Unsatisfiable;
        }
        Self::Part { first, last: last.min(size - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |first, last| Range::Part { first, last };
        let table = [
            (None, Range::All),
            (Some("bytes=0-0"), part(0, 0)),
            (Some("bytes=3-"), part(3, 9)),
            (Some("bytes=3-100"), part(3, 9)),
            (Some("bytes=-4"), part(6, 9)),
            (Some("bytes=-40"), part(0, 9)),
            (Some("bytes=10-"), Range::Unsatisfiable),
            (Some("bytes=-0"), Range::Unsatisfiable),
            (Some("bytes=5-4"), Range::All),
            (Some("bytes=0-1,3-4"), Range::All),
            (Some("lines=0-1"), Range::All),
        ];
        for (header, want) in table {
            assert_eq!(Range::parse(header, 10), want, "{header:?}");
        }
        assert_eq!(Range::parse(Some("bytes=0-"), 0), Range::Unsatisfiable);
    }
}
