//! Lets no write through once leadership has run out. It sits below every use of the client, so that no code path can
//! forget it: also a process that was stopped for a minute and goes on in the middle of a reconciliation.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use http::{Method, Request};
use tower::{BoxError, Layer, Service};

/// Until when this process may write, by its monotonic clock. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

/// A write was attempted without leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process does not lead any more, so it must not write")]
pub struct NotLeading;

impl Fence {
    /// Writes may go through until `deadline`.
    pub fn open_until(&self, deadline: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
    }

    /// No write may go through from now on.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a write may go through at `now`.
    pub fn is_open(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|deadline| now < deadline)
    }
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { inner, fence: self.clone() }
    }
}

/// A client's service behind a [`Fence`].
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    inner: S,
    fence: Fence,
}

impl<S, B> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads || self.fence.is_open(Instant::now()) {
            return Box::pin(self.inner.call(request));
        }
        Box::pin(ready(Err(NotLeading.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};

    use super::*;

    async fn send(fence: &Fence, method: Method) -> Result<&'static str, BoxError> {
        let api_server = service_fn(|_: Request<()>| async { Ok::<_, BoxError>("done") });
        let request = Request::builder().method(method).body(()).expect("a plain request");
        fence.layer(api_server).oneshot(request).await
    }

    #[tokio::test]
    async fn a_closed_fence_lets_reads_through_and_no_write() {
        let fence = Fence::default();
        assert!(send(&fence, Method::GET).await.is_ok());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let refused = send(&fence, method).await.expect_err("nobody leads");
            assert!(refused.downcast_ref::<NotLeading>().is_some());
        }
    }

    #[tokio::test]
    async fn an_open_fence_closes_by_itself() {
        let fence = Fence::default();
        fence.open_until(Instant::now() + Duration::from_secs(3600));
        assert!(send(&fence, Method::PATCH).await.is_ok());
        fence.open_until(Instant::now());
        assert!(send(&fence, Method::PATCH).await.is_err());
        fence.open_until(Instant::now() + Duration::from_secs(3600));
        fence.close();
        assert!(send(&fence, Method::PATCH).await.is_err());
    }
}
