//! Work that would hold up other requests, which are read and answered by few threads.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

/// Bytes that are read, or made room for and written, where they are: 8,192 numbers of vectors take some 0.3 ms.
const SMALL: usize = 128 * 1024;

/// Works on so many bytes. If that takes a while, another thread goes on with what this one had to do beside it.
pub(super) fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_others = || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > SMALL && has_others() { block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_beside_work_on_much() {
        let (sender, receiver) = mpsc::channel();
        let patience = Duration::from_secs(60);
        let work = tokio::spawn(async move { aside(SMALL + 1, || receiver.recv_timeout(patience)) });
        let other = tokio::spawn(async move { sender.send("done").expect("somebody waits for it") });
        assert_eq!(work.await.expect("no panic"), Ok("done"));
        other.await.expect("no panic");
    }

    #[tokio::test]
    async fn without_other_threads_it_is_done_all_the_same() {
        assert_eq!(aside(SMALL + 1, || 5), 5);
    }
}
