//! How many files, and so connections, a process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process without limits may open, as far as kembed is concerned.
const PLENTY: u64 = 1 << 20;

/// Raises the limit as far as it goes without asking anybody, and tells it. Go does so in every program, and container
/// runtimes therefore leave it at 1,024.
pub fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (now, wanted) = (current.unwrap_or(PLENTY), maximum.unwrap_or(PLENTY).min(PLENTY));
    let raised = if now >= wanted {
        now
    } else {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => wanted,
            Err(error) => {
                tracing::warn!(%error, "failed to raise the limit on open files");
                now
            }
        }
    };
    usize::try_from(raised).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_raised_once_and_for_all() {
        let files = raise_limit();
        assert!(files >= 64, "{files}");
        assert_eq!(raise_limit(), files);
        let told =
            getrlimit(Resource::Nofile).current.map_or(files, |now| usize::try_from(now).expect("a count"));
        assert!(told >= files, "{told}");
    }
}
