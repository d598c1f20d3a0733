//! A limit of time that costs nothing where it is not needed.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{error::Elapsed, timeout};

/// Waits for `work` no longer than `limit`. A timer is set only if it is not done when it is looked at twice: to set one costs
/// more than to read what came together with a request's head, which is there at the second look. The limit begins with that.
///
/// # Errors
/// If it took longer.
pub async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    let (mut work, mut looks) = (pin!(work), 0);
    let looked = poll_fn(|context: &mut Context<'_>| {
        looks += 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if looks > 1 => Poll::Ready(None),
            Poll::Pending => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    });
    match looked.await {
        Some(done) => Ok(done),
        None => timeout(limit, work).await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{Instant, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn what_takes_no_time_is_done() {
        assert_eq!(within(LIMIT, ready(1)).await, Ok(1));
        assert_eq!(within(LIMIT, tokio::task::yield_now()).await, Ok(()));
        assert_eq!(within(Duration::ZERO, ready(1)).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_some_time_is_waited_for_no_longer_than_that() {
        let begun = Instant::now();
        assert_eq!(within(LIMIT, sleep(LIMIT / 2)).await, Ok(()));
        assert!(within(LIMIT, pending::<()>()).await.is_err());
        assert_eq!(begun.elapsed(), LIMIT / 2 + LIMIT);
    }
}
