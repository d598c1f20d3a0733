//! 200,000 requests of mixed sizes, some of them faulty, late or broken off: does the pod's memory stay flat?
//!
//! `make soak` runs it. A number, as in `cargo bench --bench soak -- 20000`, is how many requests to send instead.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const REQUESTS: usize = 200_000;
const CLIENTS: usize = 8;
/// Looks at the memory, evenly spread.
const LOOKS: usize = 10;
/// What the most of the second half may be over the most of the first: fragments of the heap move a little.
const FLAT: f64 = 1.05;

/// A running pod, killed when the test fails.
struct Pod {
    child: Child,
    address: String,
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
    }
}

impl Pod {
    fn start() -> Self {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
        let mut child = Command::new(env!("CARGO_BIN_EXE_inference-pod"))
            .args(["--log-format", "json", "--log-filter", "info,inference_pod::batch=error", "serve"])
            .args(["--listen", "127.0.0.1:0", "--model"])
            .arg(model)
            .arg("--onnxruntime")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.build/onnxruntime/libonnxruntime.so"))
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut line = || log.next().expect("it runs").expect("text");
        let address = loop {
            let json: serde_json::Value = serde_json::from_str(&line()).expect("a line of JSON");
            if let Some(address) = json["address"].as_str() {
                break address.to_owned();
            }
        };
        while !line().contains("Serving") {}
        // What it says later is read, so that it is never held up.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address }
    }

    /// MiB in memory.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has some");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn text(&mut self, words: usize) -> String {
        (0..words)
            .map(|_| ["a", "hello", "world", "unknown", "the", "é", "日本"][self.roll(7)])
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A request, and whether its answer is waited for.
    fn request(&mut self) -> (String, bool) {
        let post = |path: &str, headers: &str, body: String| {
            format!(
                "POST {path} HTTP/1.1\r\nhost: pod\r\n{headers}content-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let one = |dice: &mut Self, longest: usize| {
            let words = 1 + dice.roll(longest);
            serde_json::json!({"input": dice.text(words)}).to_string()
        };
        let kind = self.roll(100);
        let request = match kind {
            0..60 => post("/v1/embeddings", "", one(self, 40)),
            60..75 => {
                let texts: Vec<_> = (0..2 + self.roll(62)).map(|_| self.text(12)).collect();
                post("/embed", "x-kembed-lane: bulk\r\n", serde_json::json!({"inputs": texts}).to_string())
            }
            75..77 => {
                let text = self.text(40_000);
                post("/v1/embeddings", "", serde_json::json!({"input": text}).to_string())
            }
            77..84 => format!("GET /?content={} HTTP/1.1\r\nhost: pod\r\n\r\n", self.text(1)),
            84..88 => post("/v1/embeddings", "", r#"{"input": ["#.into()),
            88..91 => post("/v1/embeddings", "x-kembed-deadline-ms: 1\r\n", one(self, 200)),
            91..94 => post("/tokenize", "", serde_json::json!({"inputs": self.text(100)}).to_string()),
            94..96 => post(
                "/v1/embeddings",
                "",
                serde_json::json!({"input": "a ".repeat(600), "truncate": false}).to_string(),
            ),
            _ => post("/v1/embeddings", "", one(self, 2000)),
        };
        (request, kind < 98)
    }
}

/// Sends a request, and tells the status of its answer and whether the connection is of further use.
fn send(connection: &mut BufReader<TcpStream>, request: &str) -> io::Result<(u16, bool)> {
    connection.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).expect("a status").parse().expect("a number");
    let (mut length, mut closes) = (0, false);
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        length = header.strip_prefix("content-length: ").map_or(length, |n| n.parse().expect("a number"));
        closes |= header == "connection: close";
    }
    io::copy(&mut connection.by_ref().take(length), &mut io::sink())?;
    Ok((status, !closes))
}

/// How many answers had each status; 0 stands for a connection that ended before one.
type Answers = Mutex<BTreeMap<u16, usize>>;

fn client(pod: &Pod, number: usize, requests: usize, (done, answers): (&AtomicUsize, &Answers)) {
    let mut dice = Dice(number as u64);
    let mut connection = None;
    while done.fetch_add(1, Ordering::Relaxed) < requests {
        let (request, wait) = dice.request();
        let mut open = connection
            .take()
            .unwrap_or_else(|| BufReader::new(TcpStream::connect(&pod.address).expect("it listens")));
        if !wait {
            // It goes away as soon as it has asked.
            let _ = open.get_mut().write_all(request.as_bytes());
            continue;
        }
        let (status, again) = send(&mut open, &request).unwrap_or((0, false));
        *answers.lock().expect("nobody panics").entry(status).or_default() += 1;
        connection = again.then_some(open);
    }
}

fn main() {
    let asked = std::env::args().find_map(|argument| argument.parse().ok());
    let requests = asked.unwrap_or(REQUESTS);
    let pod = Pod::start();
    let (began, done, answers) = (Instant::now(), AtomicUsize::new(0), Answers::default());
    println!("| requests | seconds | MiB |\n|---|---|---|\n| 0 | 0 | {:.1} |", pod.memory());
    let memory: Vec<f64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (pod, counts) = (&pod, (&done, &answers));
                scope.spawn(move || client(pod, number, requests, counts))
            })
            .collect();
        let looks = (1..=LOOKS).map(|look| {
            let step = requests / LOOKS * look;
            let behind = || done.load(Ordering::Relaxed) < step;
            while behind() {
                assert!(clients.iter().any(|client| !client.is_finished()) || !behind(), "the pod is gone");
                std::thread::sleep(Duration::from_millis(20));
            }
            let memory = pod.memory();
            println!("| {step} | {:.0} | {memory:.1} |", began.elapsed().as_secs_f64());
            memory
        });
        looks.collect()
    });
    let answers = answers.into_inner().expect("nobody panics");
    println!("\nanswers by status: {answers:?}");
    assert!(!answers.contains_key(&500), "something is broken");
    let most = |part: &[f64]| part.iter().copied().fold(0., f64::max);
    let (first, second) = memory.split_at(LOOKS / 2);
    let grown = most(second) / most(first);
    println!(
        "the most of the second half is {grown:.3} x the most of the first: {}",
        if grown < FLAT { "flat" } else { "it grew" }
    );
    assert!(grown < FLAT, "memory grew: {memory:?}");
}
