//! The program itself: how it starts, fails and stops.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use kembed_queue::wire::{Failure, FailureReason};

/// A limit for what takes well under a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inference-pod"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(flags).stderr(Stdio::piped()).env_clear();
    command
}

/// Runs a program that must fail, and reads its last word.
fn failure(flags: &[&str]) -> Failure {
    let message = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = message.path().to_str().expect("a plain path");
    let output = program(flags).args(["--termination-message", path]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&message).expect("it can be read");
    Failure::from_termination_message(&text).unwrap_or_else(|| panic!("{text:?} is no failure"))
}

fn small_model() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    support::write(folder.path(), &support::small_model());
    let path = folder.path().to_str().expect("a plain path").to_owned();
    (folder, path)
}

#[test]
fn a_failed_start_leaves_its_reason() {
    let (folder, model) = small_model();
    let library = support::onnxruntime();
    let library = library.to_str().expect("a plain path");
    std::fs::write(folder.path().join("no-library.so"), "this is no library").expect("it can be written");
    let bad_library = folder.path().join("no-library.so");
    let bad_library = bad_library.to_str().expect("a plain path");
    for (flags, reason, word) in [
        (
            &["--model", "/no/such/folder", "--onnxruntime", library][..],
            FailureReason::ModelNotFound,
            "/no/such/folder",
        ),
        (
            &["--model", &model, "--onnxruntime", "/no/such/lib.so"],
            FailureReason::StartFailed,
            "--onnxruntime",
        ),
        (&["--model", &model, "--onnxruntime", bad_library], FailureReason::StartFailed, "--onnxruntime"),
        (&["--model", "s3://bucket/key"], FailureReason::SourceUnsupported, "s3://"),
        (
            &["--model", &model, "--accelerator", "nvidia.com/gpu"],
            FailureReason::AcceleratorUnavailable,
            "nvidia.com/gpu",
        ),
        (
            &["--model", &model, "--onnxruntime", library, "--max-tokens", "17"],
            FailureReason::ModelUnsupported,
            "ends at 16",
        ),
        (
            &["--model", &model, "--onnxruntime", library, "--file", "x.onnx"],
            FailureReason::ModelNotFound,
            "x.onnx",
        ),
    ] {
        let failure = failure(flags);
        assert_eq!(failure.reason, reason, "{flags:?}: {}", failure.message);
        assert!(failure.message.contains(word), "{flags:?}: {}", failure.message);
    }
}

#[test]
fn a_damaged_model_is_a_reason_and_no_panic() {
    let (folder, model) = small_model();
    let library = support::onnxruntime();
    let flags = ["--model", &model, "--onnxruntime", library.to_str().expect("a plain path")];
    for name in
        ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "model.safetensors"]
    {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).expect("it can be read");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("it can be written");
        let failure = failure(&flags);
        assert_eq!(failure.reason, FailureReason::ModelInvalid, "{name}: {}", failure.message);
        assert!(failure.message.contains(name), "{name}: {}", failure.message);
        std::fs::write(&path, whole).expect("it can be written");
    }
}

/// A running pod, killed when a test ends early.
struct Running {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
    }
}

impl Running {
    fn start(flags: &[&str]) -> Self {
        let mut child = program(flags).args(["--log-format", "json"]).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("text"), 0, "it ended");
        }
        let json: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let address = json["address"].as_str().expect("an address").to_owned();
        Self { child, address, log }
    }

    fn request(&self, request: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n"))
    }

    fn await_ready(&self) {
        let start = Instant::now();
        while !self.get("/health/ready").expect("it answers").starts_with("HTTP/1.1 200") {
            assert!(start.elapsed() < PATIENCE, "it does not get ready");
            std::thread::yield_now();
        }
    }

    fn terminate(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// The exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

fn flags<'a>(model: &'a str, library: &'a Path) -> [&'a str; 4] {
    ["--model", model, "--onnxruntime", library.to_str().expect("a plain path")]
}

#[test]
fn a_stop_under_load_loses_no_request() {
    let (_folder, model) = small_model();
    let library: PathBuf = support::onnxruntime();
    let pod = Running::start(&flags(&model, &library));
    pod.await_ready();
    let stopped = AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut lost = Vec::new();
                    // A client goes elsewhere once the pod says that it is unready.
                    while !stopped.load(Ordering::Relaxed) {
                        match pod.get("/?content=a%20b%20c") {
                            Ok(answer) if answer.starts_with("HTTP/1.1 200") => {}
                            other => lost.push(format!("{other:?}")),
                        }
                    }
                    lost
                })
            })
            .collect();
        pod.terminate();
        while pod.get("/health/ready").expect("it answers").starts_with("HTTP/1.1 200") {
            std::thread::yield_now();
        }
        stopped.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!(lost, Vec::<String>::new());
    let (code, log) = pod.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn a_stop_while_the_model_is_fetched_is_no_failure() {
    // A source that accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let model = format!("http://{}/model/", silent.local_addr().expect("it is bound"));
    let library = support::onnxruntime();
    let cache = tempfile::tempdir().expect("a temporary folder");
    let cache = cache.path().to_str().expect("a plain path");
    let pod = Running::start(&[&flags(&model, &library)[..], &["--cache-dir", cache]].concat());
    assert!(pod.get("/health/live").expect("it answers").starts_with("HTTP/1.1 200"));
    assert!(pod.get("/health/ready").expect("it answers").starts_with("HTTP/1.1 503"));
    pod.terminate();
    let (code, log) = pod.end();
    assert_eq!(code, Some(0), "{log}");
}
