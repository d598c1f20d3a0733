//! The pod under test: a process of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use inference_pod::model::Precision;

use super::{
    client::ready,
    process::{cpu, free_address, memory},
};

pub struct Pod {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process until it was ready.
    pub start: Duration,
}

impl Pod {
    /// Starts a pod, with more flags than these, and waits until it is ready.
    pub fn start(program: &Path, model: &Path, library: &Path, precision: Precision, more: &[&str]) -> Self {
        let address = free_address();
        let start = Instant::now();
        let child = Command::new(program)
            .args(["--log-filter", "warn", "serve", "--listen", &address.to_string(), "--model"])
            .arg(model)
            .arg("--onnxruntime")
            .arg(library)
            .args(["--precision", precision.name()])
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}", program.display()));
        let mut pod = Self { child, address, start: Duration::ZERO };
        while !ready(address) {
            if let Some(status) = pod.child.try_wait().expect("our own child") {
                panic!("the pod {} ended before it was ready: {status}", program.display());
            }
            assert!(start.elapsed() < Duration::from_secs(120), "the pod is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        pod.start = start.elapsed();
        pod
    }

    /// Seconds of CPU that it has used.
    pub fn cpu(&self) -> f64 {
        cpu(&self.child.id().to_string())
    }

    /// Memory that is its own or mapped, in MiB: now, and at most.
    pub fn memory(&self) -> (f64, f64) {
        memory(self.child.id())
    }
}

/// Where a program is that was named on the command line. Cargo runs a bench in its package's folder, and who names a path means the
/// folder that they are in: most likely the repository's.
///
/// # Errors
/// If it is in neither.
pub fn find(program: &Path) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (here, below) = (program.canonicalize(), root.join(program).canonicalize());
    here.or(below).map_err(|e| {
        format!("no pod at {}, from here or from the root of the repository: {e}", program.display())
    })
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
