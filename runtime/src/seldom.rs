//! What is waited for beside something that wakes its task often.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Looks at a future only when that has asked for it: timers and tokens take locks whenever they are looked at.
pub(crate) struct Seldom<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Rung by the future, heard by its task.
struct Bell {
    is_rung: AtomicBool,
    task: Mutex<Waker>,
}

impl<F> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { is_rung: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) });
        Self { future, waker: Waker::from(bell.clone()), bell }
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    /// It has to be the same task each time.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.bell.is_rung.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        // Before it is looked at, so that what rings meanwhile is heard.
        this.bell.task().clone_from(context.waker());
        this.bell.is_rung.store(false, Ordering::SeqCst);
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

impl Bell {
    fn task(&self) -> std::sync::MutexGuard<'_, Waker> {
        // Nothing in there panics.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_rung.store(true, Ordering::SeqCst);
        let task = self.task().clone();
        task.wake();
    }
}
