//! The pod under test: a process of its own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use inference_pod::model::Precision;

use super::client::ready;

/// Ticks of a second in `/proc`, on every Linux.
const TICKS: f64 = 100.;

pub struct Pod {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process until it was ready.
    pub start: Duration,
}

impl Pod {
    /// Starts a pod and waits until it is ready.
    pub fn start(program: &Path, model: &Path, library: &Path, precision: Precision) -> Self {
        let address = free_address();
        let start = Instant::now();
        let child = Command::new(program)
            .args(["--log-filter", "warn", "serve", "--listen", &address.to_string(), "--model"])
            .arg(model)
            .arg("--onnxruntime")
            .arg(library)
            .args(["--precision", precision.name()])
            .stdout(Stdio::null())
            .spawn()
            .expect("the pod starts");
        let mut pod = Self { child, address, start: Duration::ZERO };
        while !ready(address) {
            assert_eq!(pod.child.try_wait().expect("our own child"), None, "the pod ended");
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
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let of = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel writes it");
            let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
            kib / 1024.
        };
        (of("VmRSS"), of("VmHWM"))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of CPU that a process has used: `self`, or a number.
pub fn cpu(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').expect("the name ends");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS
}

/// An address that is free now.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}
