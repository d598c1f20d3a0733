//! The program itself: how it starts, fails and stops.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use kembed_queue::wire::{Failure, FailureReason};
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message;

/// A limit for what takes a second or two, where the machine has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a pod that was told to stop goes on serving at least.
const LINGERS: Duration = Duration::from_secs(1);

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
        (&["--model", "ftp://host/folder"], FailureReason::SourceUnsupported, "ftp://"),
        (
            &["--model", &model, "--accelerator", "amd.com/gpu"],
            FailureReason::AcceleratorUnavailable,
            "amd.com/gpu",
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
        Self::start_with(flags, &[])
    }

    fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = program(flags)
            .envs(environment.iter().copied())
            .args(["--log-format", "json"])
            .spawn()
            .expect("it starts");
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
    let (stopped, told_to_stop) = (AtomicBool::new(false), OnceLock::new());
    // On a busy machine a client may come to connect only when the pod is gone, for which the pod cannot be blamed.
    let is_late = || told_to_stop.get().is_some_and(|at: &Instant| at.elapsed() >= LINGERS);
    let (answered, lost) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut answered, mut lost) = (0, Vec::new());
                    // A client goes elsewhere once the pod says that it is unready.
                    while !stopped.load(Ordering::Relaxed) {
                        match pod.get("/?content=a%20b%20c") {
                            Ok(answer) if answer.starts_with("HTTP/1.1 200") => answered += 1,
                            _ if is_late() => break,
                            other => lost.push(format!("{other:?}")),
                        }
                    }
                    (answered, lost)
                })
            })
            .collect();
        told_to_stop.set(Instant::now()).expect("it is told once");
        pod.terminate();
        while pod.get("/health/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            std::thread::yield_now();
        }
        stopped.store(true, Ordering::Relaxed);
        let all = clients.into_iter().map(|client| client.join().expect("no panic"));
        all.fold((0, Vec::new()), |(sum, lost), (count, more)| (sum + count, [lost, more].concat()))
    });
    assert_eq!(lost, Vec::<String>::new());
    assert!(answered > 0, "there was load");
    let (code, log) = pod.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn a_stop_while_the_model_is_fetched_is_no_failure() {
    // A source that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
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

/// ONNX Runtime keeps an identity of the machine in its user's cache, and tells its makers, unless it is kept from that.
#[test]
fn nobody_is_told_what_is_served() {
    let (_folder, model) = small_model();
    let library = support::onnxruntime();
    let home = tempfile::tempdir().expect("a temporary folder");
    let environment = [("HOME", home.path().to_str().expect("a plain path"))];
    let pod = Running::start_with(&flags(&model, &library), &environment);
    pod.await_ready();
    pod.terminate();
    let (code, log) = pod.end();
    assert_eq!(code, Some(0), "{log}");
    let left = std::fs::read_dir(home.path()).expect("it can be listed").next();
    assert!(left.is_none() && !log.contains("telemetry"), "{left:?}: {log}");
}

/// What a collector of traces is sent until the pod has ended.
fn collect(listener: &TcpListener, ended: &AtomicBool) -> Vec<TracesData> {
    listener.set_nonblocking(true).expect("it can be");
    let mut collected = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::yield_now();
            continue;
        };
        stream.set_nonblocking(false).expect("it can be");
        let mut reader = BufReader::new(stream.try_clone().expect("it can be"));
        let (mut head, mut length) = (String::new(), 0);
        while reader.read_line(&mut head).expect("text") > 2 {
            let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            length = last.strip_prefix("content-length: ").map_or(length, |n| n.parse().expect("a number"));
        }
        assert!(head.starts_with("POST /v1/traces "), "{head}");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a whole body");
        collected.push(TracesData::decode(body.as_slice()).expect("a message"));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .expect("it reads");
    }
    collected
}

/// Runs a pod that sends traces, asks it twice with this `traceparent`, and gives what it sent.
fn traced(traceparent: &str) -> Vec<TracesData> {
    let (_folder, model) = small_model();
    let library = support::onnxruntime();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_SERVICE_NAME", "a-pod")];
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| collect(&listener, &ended));
        let pod = Running::start_with(&flags(&model, &library), &environment);
        pod.await_ready();
        for path in ["/?content=a%20secret", "/get_vector_simple"] {
            let head = format!(
                "GET {path} HTTP/1.1\r\nhost: pod\r\ntraceparent: {traceparent}\r\nconnection: close\r\n\r\n"
            );
            pod.request(&head).expect("it answers");
        }
        pod.terminate();
        let (code, log) = pod.end();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(code, Some(0), "{log}");
        collector.join().expect("no panic")
    })
}

#[test]
fn a_request_continues_the_trace_of_its_client() {
    let sent = traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let text = format!("{sent:?}");
    assert!(text.contains("a-pod") && !text.contains("secret"), "{text}");
    let scopes = sent.iter().flat_map(|data| &data.resource_spans).flat_map(|resource| &resource.scope_spans);
    let spans: Vec<_> = scopes.flat_map(|scope| &scope.spans).collect();
    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert!(spans.iter().all(|span| span.trace_id == trace), "{text}");
    let named = |name: &str| {
        *spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let request = named("GET /");
    assert_eq!(request.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    let parts = ["tokenise", "queue", "run"].map(named);
    let mut before = request.start_time_unix_nano;
    for part in parts {
        assert_eq!(part.parent_span_id, request.span_id, "{text}");
        assert!(before <= part.start_time_unix_nano + SLACK, "{text}");
        assert!(part.end_time_unix_nano <= request.end_time_unix_nano + SLACK, "{text}");
        before = part.start_time_unix_nano;
    }
    let long = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
    assert!(parts.map(long).iter().sum::<u64>() <= long(request) + 1_000_000, "{text}");
    let refused = named("GET /get_vector_simple");
    let status =
        refused.attributes.iter().find(|a| a.key == "http.response.status_code").expect("it is told");
    assert!(format!("{:?}", status.value).contains("400"), "{status:?}");
}

/// Nanoseconds: a minute. Two clocks are read one after the other, and on a busy machine the thread has to wait in between.
const SLACK: u64 = 60_000_000_000;

#[test]
fn a_trace_that_its_client_does_not_record_is_not_sent() {
    assert_eq!(traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), []);
}

#[test]
fn a_collector_that_is_away_is_told_of_once() {
    let (_folder, model) = small_model();
    let library = support::onnxruntime();
    // Nobody runs the discard service, which has port 9. Each span is sent by itself, and at once.
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let pod = Running::start_with(&flags(&model, &library), &environment);
    pod.await_ready();
    for _ in 0..3 {
        assert!(pod.get("/?content=a").expect("it answers").starts_with("HTTP/1.1 200"));
    }
    pod.terminate();
    let (code, log) = pod.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("failed to send traces").count(), 1, "{log}");
}

/// A web server that has the small model in its folder `m`, and, as a proxy, has it in every server's.
struct Server {
    address: String,
    /// The first line of each request.
    seen: mpsc::Receiver<String>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (tell, seen) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that has gone, or a test that has ended.
                let _ = answer(stream.expect("a connection"), &tell);
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer(mut stream: TcpStream, tell: &mpsc::Sender<String>) -> std::io::Result<()> {
    let mut head = BufReader::new(stream.try_clone()?).lines();
    let first = head.next().transpose()?.unwrap_or_default();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let _ = tell.send(first.clone());
    let path = first.split(' ').nth(1).unwrap_or_default();
    let name = path.split_once("/m/").map(|(_, name)| name);
    let file = support::small_model().into_iter().find(|(known, _)| Some(*known) == name);
    let (status, bytes) = file.map_or(("404 Not Found", Vec::new()), |(_, bytes)| ("200 OK", bytes));
    let length = bytes.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")?;
    stream.write_all(&bytes)
}

#[test]
fn models_come_through_the_proxy_of_the_environment() {
    let (library, cache) = (support::onnxruntime(), tempfile::tempdir().expect("a temporary folder"));
    let cache = cache.path().to_str().expect("a plain path");
    let start = |model: &str, variables: &[(&str, &str)]| {
        Running::start_with(&[&flags(model, &library)[..], &["--cache-dir", cache]].concat(), variables)
    };
    // No name ends in .test, so only the proxy can have answered.
    let proxy = Server::start();
    start("http://models.test/m", &[("HTTP_PROXY", &proxy.url())]).await_ready();
    assert!(proxy.seen.iter().next().expect("a request").starts_with("GET http://models.test/m/"));

    for (model, host) in [
        ("https://models.test/m", "models.test"),
        ("hf://a/b", "huggingface.co"),
        ("s3://b/m", "s3.us-east-1.amazonaws.com"),
    ] {
        let proxy = Server::start();
        let variables = [("HTTPS_PROXY", &*proxy.url()), ("AWS_SKIP_SIGNATURE", "true")];
        let _pod = start(model, &variables);
        let first = proxy.seen.recv_timeout(PATIENCE).expect("a request");
        assert_eq!(first, format!("CONNECT {host}:443 HTTP/1.1"), "{model}");
    }

    let (proxy, server) = (Server::start(), Server::start());
    let variables = [("HTTP_PROXY", &*proxy.url()), ("NO_PROXY", "127.0.0.1")];
    start(&format!("{}/m", server.url()), &variables).await_ready();
    assert!(proxy.seen.try_recv().is_err(), "the proxy was asked");
}
