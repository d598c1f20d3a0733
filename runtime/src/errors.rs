//! Errors in words.

use std::{error::Error, iter::successors};

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let causes = successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to {0}")]
    struct Failed(&'static str, #[source] io::Error);

    #[test]
    fn each_cause_follows_what_it_caused() {
        let error = Failed("read", io::ErrorKind::PermissionDenied.into());
        assert_eq!(chain(&error), "failed to read: permission denied");
    }
}
