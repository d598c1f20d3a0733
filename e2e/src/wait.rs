//! Waiting with a deadline.

use std::{future::Future, time::Duration};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take on a machine that does many things at once: the last pod alone stays for twice as long as one
/// took to start. A test that passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Between two looks at something that cannot be watched.
const PERIOD: Duration = Duration::from_millis(200);

/// Looks again and again until `look` returns a value. `what` completes the sentence "waited too long for ...".
///
/// # Errors
/// If `look` fails, or has nothing by the [`DEADLINE`].
pub async fn await_that<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen =
            timeout(DEADLINE, look()).await.with_context(|| format!("no answer while waiting for {what}"))?;
        if let Some(value) = seen? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited too long for {what}");
        }
        sleep(PERIOD).await;
    }
}
