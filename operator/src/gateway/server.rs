//! Accepts connections, and ends without losing a request.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::service::service_fn;
use kembed_runtime::{
    crew::Crew,
    server::{self, Patience},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::answer::Gateway;

/// Files that are no connection: listeners, watches, and those of the runtime.
const OTHER_FILES: usize = 64;

/// How long before the end those who wait are sent away.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How the server ends.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long connections are still accepted, while the word that this gateway ends goes round the cluster.
    pub delay: Duration,
    /// How long requests in hand may take after that.
    pub timeout: Duration,
}

impl Drain {
    /// Cancelled when those who still wait for a pod have to be sent away, so that they hear of it before the end.
    pub fn closing(self, shutdown: CancellationToken) -> CancellationToken {
        let closing = CancellationToken::new();
        let cancel = closing.clone();
        tokio::spawn(async move {
            shutdown.cancelled().await;
            sleep(self.delay + self.timeout - (self.timeout / 10).min(LAST_WORD)).await;
            cancel.cancel();
        });
        closing
    }
}

/// Serves, by a crew if there is one, until `shutdown` is cancelled and all requests in hand are answered, of other gateways too, or their time is over.
pub async fn serve(
    crew: Option<Crew>,
    listener: TcpListener,
    gateway: Arc<Gateway>,
    patience: Patience,
    drain: Drain,
    shutdown: CancellationToken,
) {
    let answering = gateway.clone();
    let service = service_fn(move |request| {
        let gateway = answering.clone();
        async move { Ok::<_, Infallible>(gateway.answer(request).await) }
    });
    let closing = CancellationToken::new();
    let end = async {
        shutdown.cancelled().await;
        sleep(drain.delay).await;
        closing.cancel();
        sleep(drain.timeout).await;
    };
    let serve = async {
        server::serve_by(crew.as_ref(), listener, service, patience, closing.clone()).await;
        // What other gateways forwarded is still in hand.
        gateway.finish().await;
    };
    tokio::select! {
        () = serve => (),
        () = end => tracing::warn!(timeout = ?drain.timeout, "ended with requests in hand"),
    }
}

/// So many connections at most, and only as many as there may be files: a request takes one to its client and one to
/// its pod.
pub fn patience(connections: usize, files: usize) -> Patience {
    let most = connections.min(files.saturating_sub(OTHER_FILES) / 2).max(2);
    Patience { comfortable: most - most / 4, most, ..Patience::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_connections_as_files_allow() {
        let bounds = |connections, files| {
            let patience = patience(connections, files);
            (patience.comfortable, patience.most)
        };
        assert_eq!(bounds(16_384, 1 << 20), (12_288, 16_384));
        assert_eq!(bounds(16_384, 1024), (360, 480));
        assert_eq!(bounds(16_384, 0), (2, 2));
    }
}
