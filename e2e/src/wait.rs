//! Waiting with a deadline.

use std::{fmt::Debug, future::Future, time::Duration};

use anyhow::{Context, anyhow};
use kube::{
    Api, Resource,
    runtime::wait::{Condition, await_condition},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take on a machine that does many things at once: the last pod alone stays for twice as long as one
/// took to start. A test that passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(360);

/// Between two looks at something that cannot be watched.
const PERIOD: Duration = Duration::from_millis(200);

/// Before a watch that broke is begun anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks again and again until `look` returns a value. `what` completes the sentence "waited too long for ...".
///
/// # Errors
/// If `look` fails for a reason that does not pass by itself, or has nothing by the [`DEADLINE`].
pub async fn await_that<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen =
            timeout(DEADLINE, look()).await.with_context(|| format!("no answer while waiting for {what}"))?;
        let error = match seen {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) if passes(&error) => Some(error),
            Err(error) => return Err(error),
        };
        if Instant::now() > deadline {
            return Err(too_long(what, error));
        }
        sleep(PERIOD).await;
    }
}

/// Watches an object until `condition` holds, however often the watch breaks: the API server may end one at any time. `what`
/// completes the sentence "waited too long for ...".
///
/// # Errors
/// If it does not by the [`DEADLINE`].
pub async fn await_object<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    condition: impl Condition<K>,
) -> anyhow::Result<Option<K>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let holds = |object: Option<&K>| condition.matches_object(object);
    let mut last = None;
    let watched = async {
        loop {
            match await_condition(api.clone(), name, holds).await {
                Ok(object) => return object,
                Err(error) => last = Some(anyhow::Error::new(error)),
            }
            sleep(PAUSE).await;
        }
    };
    let seen = timeout(DEADLINE, watched).await;
    seen.map_err(|_| too_long(what, last))
}

fn too_long(what: &str, last: Option<anyhow::Error>) -> anyhow::Error {
    let what = format!("waited too long for {what}");
    match last {
        Some(error) => error.context(what),
        None => anyhow!(what),
    }
}

/// Whether an error says nothing of what was asked for: nobody was reached, or the API server had no time.
fn passes(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.code == 429 || status.code >= 500,
        Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => true,
        Some(_) => false,
        None => cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kube::core::Status;

    use super::*;

    fn api(code: u16) -> anyhow::Error {
        let status = Status { code, ..Status::default() };
        anyhow::Error::new(kube::Error::Api(Box::new(status))).context("failed to list pods")
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_time_is_asked_again_and_who_refuses_is_not() {
        let asked = Cell::new(0);
        let answer = |code: u16| {
            asked.set(asked.get() + 1);
            let seen = if asked.get() < 3 { Err(api(code)) } else { Ok(Some(())) };
            async move { seen }
        };
        await_that("an answer", || answer(503)).await.expect("it has time the third time");
        assert_eq!(asked.replace(0), 3);
        let error = await_that("an answer", || answer(403)).await.expect_err("it refuses");
        assert_eq!((asked.get(), passes(&error)), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_hears_what_it_was_about() {
        let nothing = await_that("a pod", async || Ok(None::<()>)).await.expect_err("nothing comes");
        assert_eq!(format!("{nothing:#}"), "waited too long for a pod");
        let error = await_that("a pod", async || Err::<Option<()>, _>(api(500))).await.expect_err("no pod");
        assert!(
            format!("{error:#}").starts_with("waited too long for a pod: failed to list pods"),
            "{error:#}"
        );
    }
}
