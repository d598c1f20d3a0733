//! Clients that are slow, greedy or mean harm no others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request as PodRequest};
use http_body_util::BodyExt;
use kembed_runtime::server::Patience;
use operator::gateway::availability::Service;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::support::*;

/// A gateway before `team/minilm`, whose pod tells what it was asked.
async fn telling(setup: Setup) -> Bench {
    let bench = Bench::start_with(setup).await;
    bench.add(service("team/minilm"), &[telling_pod("a").await]);
    bench
}

/// A pod that holds each request until there is a permit for it, and counts those that it holds.
struct Holding {
    held: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

async fn holding(bench: &Bench) -> Holding {
    let (held, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (count, permits) = (held.clone(), release.clone());
    let pod = Router::new().fallback(async move |request: PodRequest| {
        /// Counts one less when its request is over.
        struct Over(Arc<AtomicUsize>);
        impl Drop for Over {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let _ = request.into_body().collect().await;
        count.fetch_add(1, Ordering::Relaxed);
        let _over = Over(count);
        permits.acquire().await.expect("a semaphore that is never closed").forget();
        "held"
    });
    bench.add(service("team/minilm"), &[pod_with(pod).await]);
    Holding { held, release }
}

impl Holding {
    fn count(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let patience = Patience { idle: Duration::from_millis(50), ..Patience::default() };
    let bench = telling(Setup { patience, ..Setup::default() }).await;
    let answer = bench.raw("GET / HTTP/1.1\r\nhost: minilm.team\r\nx: ").await;
    assert!(!answer.contains("200"), "{answer}");
}

/// Neither where a body is passed on as it comes nor where it is read first.
#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let bench = Bench::start().await;
    let hasty = Service { request_timeout: Some(Duration::from_millis(50)), ..service("team/minilm") };
    bench.add(hasty, &[telling_pod("a").await]);
    let request = "POST /decode HTTP/1.1\r\nhost: minilm.team\r\nconnection: close\r\ncontent-length: 100\r\n\r\nonly this";
    assert!(bench.raw(request).await.starts_with("HTTP/1.1 504 "));
    let request = request.replace("/decode", "/embed");
    assert!(bench.raw(&request).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn heads_of_any_size_are_not_taken() {
    let bench = telling(Setup::default()).await;
    let many = (0..200).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let large = format!("x: {}\r\n", "y".repeat(70_000));
    let long = format!("GET /{} HTTP/1.1\r\nhost: minilm.team\r\n\r\n", "y".repeat(70_000));
    for request in [many, large].map(|lines| format!("GET / HTTP/1.1\r\nhost: minilm.team\r\n{lines}\r\n")) {
        assert!(bench.raw(&request).await.starts_with("HTTP/1.1 431 "));
    }
    let answer = bench.raw(&long).await;
    assert!(answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// What a proxy in front may read as one request and the gateway as two, or the other way round.
#[tokio::test]
async fn smuggled_requests_do_not_arrive() {
    let bench = telling(Setup::default()).await;
    let body = "5\r\nabcde\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: minilm.team\r\n\r\n";
    for (lines, status) in [
        // Of two lengths the one in chunks counts, alone is passed on, and nothing after it is read.
        ("content-length: 3\r\ntransfer-encoding: chunked", 200),
        ("transfer-encoding: chunked\r\ncontent-length: 3", 200),
        ("content-length: 3\r\ncontent-length: 5", 400),
        ("content-length: 3, 5", 400),
        ("content-length: +3", 400),
        ("content-length: -3", 400),
        ("content-length: 0x3", 400),
        ("content-length: 99999999999999999999", 400),
        ("transfer-encoding: chunked, identity", 400),
        ("transfer-encoding: xchunked", 400),
        ("transfer-encoding: \"chunked\"", 400),
        ("transfer-encoding : chunked", 400),
        ("content-length : 3", 400),
        (" folded: x\r\ntransfer-encoding: chunked", 400),
        ("x: y\rtransfer-encoding: chunked", 400),
    ] {
        let answer =
            bench.raw(&format!("POST /first HTTP/1.1\r\nhost: minilm.team\r\n{lines}\r\n\r\n{body}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines:?}: {answer}");
        assert!(!answer.contains("/second"), "{lines:?}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            if status == 200 { 2 } else { 1 },
            "{lines:?}: {answer}"
        );
        assert!(!answer.contains(r#""content-length""#), "{lines:?}: {answer}");
    }
    for request in [
        "POST / HTTP/1.0\r\nhost: minilm.team\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nhost: minilm.team\nx y\n\n",
        "GET  / HTTP/1.1\r\nhost: minilm.team\r\n\r\n",
        "G\0T / HTTP/1.1\r\nhost: minilm.team\r\n\r\n",
    ] {
        let answer = bench.raw(request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{request:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn there_are_only_so_many_connections() {
    let patience = Patience { comfortable: 1, most: 1, ..Patience::default() };
    let bench = telling(Setup { patience, ..Setup::default() }).await;
    let first = TcpStream::connect(bench.address).await.expect("a gateway that listens");
    let mut second = TcpStream::connect(bench.address).await.expect("a place in the backlog");
    second.write_all(b"GET / HTTP/1.1\r\nhost: minilm.team\r\n\r\n").await.expect("room in the socket");
    let mut byte = [0];
    let early = timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "it waits for its place");
    drop(first);
    timeout(PATIENCE, second.read_exact(&mut byte)).await.expect("its turn").expect("an answer");
}

#[tokio::test]
async fn there_is_only_so_much_room_for_bodies() {
    let mut setup = Setup::default();
    setup.limits.bodies = 1500;
    let bench = telling(setup).await;
    let body = format!(r#"{{"model":"team/minilm","input":"{}"}}"#, "x".repeat(900));
    let (most, rest) = body.split_at(body.len() - 2);
    let mut first = TcpStream::connect(bench.address).await.expect("a gateway that listens");
    let head = format!("POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    first.write_all(format!("{head}{most}").as_bytes()).await.expect("a gateway that reads");
    let ask = || bench.ask(post("x", "/v1/embeddings", body.clone()));
    let mut answer = ask().await;
    // Until the gateway has read what was sent before.
    for _ in 0..1000 {
        if answer.status != 200 {
            break;
        }
        answer = ask().await;
    }
    assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (503, "gateway_overloaded"));
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("1")));
    first.write_all(rest.as_bytes()).await.expect("a gateway that reads");
    let mut told = [0; 12];
    timeout(PATIENCE, first.read_exact(&mut told)).await.expect("in time").expect("an answer");
    assert_eq!(&told, b"HTTP/1.1 200");
    assert_eq!(ask().await.status, 200, "there is room again");
}

/// A connection that speaks HTTP/2 frame by frame, as no client would.
struct Frames(TcpStream);

/// Types of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

impl Frames {
    async fn connect(bench: &Bench) -> Self {
        let mut stream = TcpStream::connect(bench.address).await.expect("a gateway that listens");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a gateway that reads");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("a gateway that reads");
        Self(stream)
    }

    /// The next frame of this type: the stream that it is of, and what it says; `None` at the end.
    async fn next(&mut self, kind: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            timeout(PATIENCE, self.0.read_exact(&mut head)).await.expect("a frame or the end").ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut told = vec![0; usize::try_from(length).expect("24 bits")];
            timeout(PATIENCE, self.0.read_exact(&mut told)).await.expect("the whole frame").ok()?;
            if head[3] == kind {
                return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), told));
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags, a, b, c, d], payload].concat()
}

/// `GET / HTTP/2` to `minilm.team`, whole.
fn request(stream: u32) -> Vec<u8> {
    // Methods, scheme and path by their number in HPACK's table, and the authority written out.
    let head = [&[0x82, 0x86, 0x84, 0x41, 11], b"minilm.team".as_slice()].concat();
    frame(HEADERS, 0x1 | 0x4, stream, &head)
}

/// Odd numbers are a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (1u32..).step_by(2)
}

/// The last four bytes that a frame says.
fn code(told: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(told[at..at + 4].try_into().expect("four bytes"))
}

/// CVE-2023-44487: requests that are taken back at once cost the client nothing.
#[tokio::test]
async fn requests_taken_back_as_fast_as_they_are_sent() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let bench = Bench::start().await;
    let pod = holding(&bench).await;
    let mut hostile = Frames::connect(&bench).await;
    let cancel = 8u32.to_be_bytes();
    let storm: Vec<u8> = streams()
        .take(10_000)
        .flat_map(|id| [request(id), frame(RST_STREAM, 0, id, &cancel)].concat())
        .collect();
    // It may be cut off before all is sent.
    let _ = hostile.0.write_all(&storm).await;
    let (_, told) = hostile.next(GOAWAY).await.expect("a farewell before the end");
    assert_eq!(code(&told, 4), ENHANCE_YOUR_CALM);
    eventually(|| pod.count() == 0).await;
    pod.release.add_permits(1);
    assert_eq!(bench.ask(get("minilm.team", "/")).await.body, "held", "others are served");
}

/// CVE-2024-27316: a head that goes on and on takes memory before there is a request.
#[tokio::test]
async fn a_head_over_http2_that_never_ends() {
    const CONTINUATION: u8 = 9;
    let bench = telling(Setup::default()).await;
    let mut hostile = Frames::connect(&bench).await;
    let more = frame(CONTINUATION, 0, 1, &[0x82; 16_000]);
    let written = async {
        hostile.0.write_all(&frame(HEADERS, 0x1, 1, &[0x82])).await?;
        for _ in 0..100_000 {
            hostile.0.write_all(&more).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    assert!(timeout(PATIENCE, written).await.expect("an end").is_err(), "it takes 1.6 GB of a head");
    assert_eq!(bench.ask(get("minilm.team", "/")).await.status, 200);
}

#[tokio::test]
async fn one_connection_has_only_so_many_requests_at_a_time() {
    const REFUSED_STREAM: u32 = 7;
    let bench = Bench::start().await;
    let pod = holding(&bench).await;
    let mut greedy = Frames::connect(&bench).await;
    let requests: Vec<u8> = streams().take(300).flat_map(request).collect();
    greedy.0.write_all(&requests).await.expect("a gateway that reads");
    for _ in 256..300 {
        let (stream, told) = greedy.next(RST_STREAM).await.expect("a refusal");
        assert!(stream > 2 * 256, "{stream} is one of the first");
        assert_eq!(code(&told, 0), REFUSED_STREAM);
    }
    // Not all of the others need come to the pod: so many connections at once may be more than it has a backlog for.
    eventually(|| pod.count() > 0).await;
    assert!(pod.count() <= 256, "{}", pod.count());
    drop(greedy);
    eventually(|| pod.count() == 0).await;
}
