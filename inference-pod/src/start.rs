//! Why a pod could not start or go on, for people and for the controller.

use std::{io, net::SocketAddr, path::Path};

use kembed_queue::wire::{Failure, FailureReason};
use kembed_runtime::errors::chain;

use crate::{
    backend::{RunError, onnx::LibraryError},
    cuda::{prepare::PrepareError, probe::ProbeError},
    model::ModelError,
    source::{SourceError, location::LocationError},
};

/// The end of a pod.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no device of the kind that was asked for that can be used.
    #[error("{resource} was asked for, and {why}")]
    Accelerator {
        /// As Kubernetes names what was asked for.
        resource: String,
        /// What stands in the way.
        why: AcceleratorError,
    },
    /// The network cannot be computed in such numbers.
    #[error(
        "precision {0} is not supported: networks are computed in float32 or int8 on a CPU, in float32 or float16 on a GPU"
    )]
    Precision(&'static str),
    /// A GPU cannot compute the network in such numbers, though they would suit it.
    #[error(
        "precision bfloat16 is not supported: for GPUs ONNX Runtime has attention between packed tokens in float16 and float32 alone"
    )]
    NoBFloat16,
    /// The model is named in a way that leads nowhere.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// Its files cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// They are no model that can be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What runs networks is not there.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The network failed when it ran for the first time.
    #[error("failed to warm up")]
    WarmUp(#[source] RunError),
    /// The recorded space cannot be read.
    #[error("{0}")]
    Recorded(String),
    /// The address is not to be had.
    #[error("failed to listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no threads or signals.
    #[error("failed to start")]
    System(#[source] io::Error),
    /// What the network runs on failed, and can be used by another process at best.
    #[error("the accelerator is lost: {0}")]
    Lost(String),
    /// A fault of this program.
    #[error("{0} panicked")]
    Panicked(&'static str),
}

/// What stands in the way of using an accelerator.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// It is of a kind that this program cannot use.
    #[error("this program can use NVIDIA's GPUs and no others")]
    Unknown,
    /// There is no GPU that it can use.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// There is one, and the network cannot be run on it.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

impl StartError {
    /// As it is written to the termination message.
    pub fn failure(&self) -> Failure {
        Failure { reason: self.reason(), message: chain(self) }
    }

    /// Whether a device was in use, and may keep the process from ending as others do.
    pub fn may_hang(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Accelerator { why: AcceleratorError::Prepare(_), .. })
    }

    fn reason(&self) -> FailureReason {
        match self {
            Self::Accelerator { why: AcceleratorError::Prepare(PrepareError::Wrong { .. }), .. } => {
                FailureReason::AcceleratorInaccurate
            }
            Self::Accelerator { .. } => FailureReason::AcceleratorUnavailable,
            Self::Lost(_) => FailureReason::AcceleratorLost,
            Self::Precision(_) | Self::NoBFloat16 => FailureReason::ModelUnsupported,
            Self::Location(error) => error.reason(),
            Self::Source(error) => error.reason(),
            Self::Model(error) => error.reason(),
            Self::WarmUp(_) => FailureReason::ModelInvalid,
            Self::Library(_)
            | Self::Recorded(_)
            | Self::Listen { .. }
            | Self::System(_)
            | Self::Panicked(_) => FailureReason::StartFailed,
        }
    }
}

/// Leaves a failure where Kubernetes looks for it.
pub fn write_termination_message(file: &Path, failure: &Failure) {
    if let Err(error) = std::fs::write(file, failure.to_termination_message()) {
        tracing::warn!(%error, file = %file.display(), "failed to write the termination message");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_whole_chain_once() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = StartError::from(SourceError::Cache { path: "/c".into(), source });
        let failure = error.failure();
        assert_eq!(failure.reason, FailureReason::StartFailed);
        assert_eq!(
            failure.message,
            "failed to use /c; name another place with --cache-dir: permission denied"
        );
    }

    #[test]
    fn a_gpu_that_computes_wrong_vectors_is_told_from_one_that_cannot_be_used() {
        let failure = |why| StartError::Accelerator { resource: "nvidia.com/gpu".into(), why }.failure();
        let wrong = PrepareError::Wrong { name: "GPU".into(), cosine: 0.5, alike: 0.999 };
        let wrong = failure(AcceleratorError::Prepare(wrong));
        assert_eq!(wrong.reason, FailureReason::AcceleratorInaccurate);
        let words = "nvidia.com/gpu was asked for, and GPU computes wrong vectors: the cosine with those of the CPU is 0.5";
        assert!(wrong.message.starts_with(words), "{}", wrong.message);
        let full = failure(AcceleratorError::Prepare(PrepareError::NoRoom("GPU".into())));
        assert_eq!(full.reason, FailureReason::AcceleratorUnavailable);
    }

    #[test]
    fn the_termination_message_is_read_back() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let failure =
            StartError::Accelerator { resource: "a.b/c".into(), why: AcceleratorError::Unknown }.failure();
        write_termination_message(file.path(), &failure);
        let text = std::fs::read_to_string(&file).expect("it can be read");
        assert_eq!(Failure::from_termination_message(&text), Some(failure));
    }
}
