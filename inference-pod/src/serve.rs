//! The life of a pod: listen, load, serve, stop.

use std::{io, process::ExitCode, sync::Arc, time::Duration};

use hyper_util::service::TowerToHyperService;
use kembed_runtime::{
    server::{self, Patience},
    shutdown,
};
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    batch::Ended,
    config::{Config, ServeArgs},
    cuda::driver,
    limits::Limits,
    load::load,
    pod::{Pod, Stage},
    start::{StartError, write_termination_message},
};

/// Between going unready and taking no more connections: what routes requests here sees it in that time.
const LINGER: Duration = Duration::from_secs(1);

/// For the network's threads to end. With the one above and the grace for what is in hand, which is 25 s unless the
/// flags say otherwise, it is less than the 30 s after which Kubernetes kills unless told otherwise.
const ENDING: Duration = Duration::from_secs(2);

/// For clients to be told that their requests failed, after the network's threads ended by themselves.
const TELLING: Duration = Duration::from_secs(2);

/// For work that blocks a thread, such as loading a model, to end. What ONNX Runtime holds goes when the process ends, and
/// a thread that is inside it just then brings the process down.
const BLOCKED: Duration = Duration::from_secs(5);

/// Cores for each thread that reads requests and writes answers, which takes a twentieth to an eighth of what their network
/// takes. With more, each request wakes threads that find nothing to do, on cores that compute.
const CORES_EACH: usize = 4;

/// Serves until a signal comes or something fails; the exit code says which.
pub fn serve(args: ServeArgs) -> ExitCode {
    let termination_message = args.termination_message.clone();
    let ended = runtime().map_err(StartError::System).and_then(|runtime| {
        let ended = runtime.block_on(async {
            let config = args.into_config()?;
            run(config, shutdown::on_signal().map_err(StartError::System)?).await
        });
        runtime.shutdown_timeout(BLOCKED);
        ended
    });
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let failure = error.failure();
    tracing::error!(reason = %failure.reason, "{}", failure.message);
    if let Some(file) = termination_message {
        write_termination_message(&file, &failure);
    }
    if error.may_hang() {
        driver::leave(1);
    }
    ExitCode::FAILURE
}

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread().worker_threads(cores().div_ceil(CORES_EACH)).enable_all().build()
}

/// As many as the cgroup's quota and the affinity allow.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Listens at once, for health checks, and loads the model meanwhile.
async fn run(config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let Config { listen, identity, load: loading, request_timeout, shutdown_grace } = config;
    let threads = cores();
    let limits = Limits { timeout: request_timeout, ..Limits::new(threads) };
    let pod = Arc::new(Pod::new(identity, limits));
    let listening = |source| StartError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(listening)?;
    tracing::info!(address = %listener.local_addr().map_err(listening)?, threads, "listening");
    let closing = CancellationToken::new();
    let service = TowerToHyperService::new(api::router(pod.clone()));
    let server = tokio::spawn(server::serve(listener, service, Patience::default(), closing.clone()));
    let ended = tokio::select! {
        loaded = load(loading, threads, &pod) => {
            let (serving, ended) = loaded?;
            pod.serve(serving);
            watch(ended, &stop).await
        }
        () = stop.cancelled() => Ok(None),
    };
    pod.enter(Stage::Stopping);
    if let Ok(Some(_)) = ended {
        tokio::time::sleep(LINGER).await;
    }
    closing.cancel();
    let grace = if ended.is_ok() { shutdown_grace } else { shutdown_grace.min(TELLING) };
    if timeout(grace, server).await.is_err() {
        tracing::warn!("requests were still in hand when the time was over");
    }
    let ended = ended?;
    // The last owner of the queue goes, and with it the thread: what runs networks must not outlive `main`.
    drop(pod);
    if let Some(ended) = ended {
        let _ = timeout(ENDING, ended).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Waits for the signal; before it, the network's thread must not end.
async fn watch(
    mut ended: oneshot::Receiver<Ended>,
    stop: &CancellationToken,
) -> Result<Option<oneshot::Receiver<Ended>>, StartError> {
    tokio::select! {
        ended = &mut ended => Err(match ended {
            Ok(Ended::Lost(why)) => StartError::Lost(why),
            Ok(Ended::Done | Ended::Panicked) | Err(_) => StartError::Panicked("the thread that runs the network"),
        }),
        () = stop.cancelled() => Ok(Some(ended)),
    }
}

#[cfg(test)]
mod tests {
    use kembed_queue::wire::FailureReason;

    use super::*;

    #[tokio::test]
    async fn how_the_networks_threads_end_is_the_end_of_the_pod() {
        for (ended, reason, word) in [
            (Ended::Lost("CUDA_ERROR_LAUNCH_FAILED".into()), FailureReason::AcceleratorLost, "LAUNCH_FAILED"),
            (Ended::Panicked, FailureReason::StartFailed, "panicked"),
        ] {
            let (teller, told) = oneshot::channel();
            teller.send(ended).expect("it is waited for");
            let error = watch(told, &CancellationToken::new()).await.expect_err("the pod cannot go on");
            let failure = error.failure();
            assert_eq!(failure.reason, reason);
            assert!(failure.message.contains(word), "{}", failure.message);
        }
    }

    #[tokio::test]
    async fn a_signal_is_no_failure() {
        let (_teller, told) = oneshot::channel();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(watch(told, &stop).await.expect("no failure").is_some());
    }
}
