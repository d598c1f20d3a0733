//! Threads that each serve connections of their own.

use std::{
    error::Error,
    io,
    num::NonZeroUsize,
    sync::Arc,
    thread::{self, available_parallelism},
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A thread for each core, and on each a runtime that knows of no other: what is begun there stays there, and is never
/// woken by way of another thread, which costs more than most of what a request does. Clones are the same crew; with the last
/// one all that runs there ends.
#[derive(Clone, Debug)]
pub struct Crew(Arc<[Member]>);

#[derive(Debug)]
struct Member {
    runtime: Handle,
    _ends: DropGuard,
}

impl Crew {
    /// A thread for each core that this process may use.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn start() -> io::Result<Self> {
        Self::of(available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// So many threads.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn of(threads: NonZeroUsize) -> io::Result<Self> {
        (0..threads.get()).map(|_| Member::start()).collect::<io::Result<_>>().map(Self)
    }

    /// The runtimes of all threads.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|member| &member.runtime)
    }

    /// Has a connection served by the thread that has least to do, counted by what was begun there and has not ended.
    pub fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) {
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return lost(&error),
        };
        let idlest = self.0.iter().min_by_key(|member| member.runtime.metrics().num_alive_tasks());
        idlest.expect("there is at least one thread").runtime.spawn(async move {
            // There, so that it is that thread which hears of what comes.
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => lost(&error),
            }
        });
    }
}

fn lost(error: &io::Error) {
    tracing::warn!(error = error as &dyn Error, "failed to hand a connection to another thread");
}

impl Member {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, ended) = (runtime.handle().clone(), CancellationToken::new());
        let ends = ended.clone().drop_guard();
        thread::Builder::new()
            .name("connections".to_owned())
            .spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(Self { runtime: handle, _ends: ends })
    }
}
