//! How a program bears clients that are slow, many or greedy.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use hyper_util::service::TowerToHyperService;
use kembed_runtime::server::{Patience, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// A limit for what takes well under a second, where the machine has nothing else to do.
const LONG: Duration = Duration::from_secs(120);

/// For what must end soon.
const SHORT: Duration = Duration::from_millis(100);

/// For what must end soon, but not before a busy machine comes to send a request.
const SOON: Duration = Duration::from_secs(2);

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: pod\r\n\r\n";

/// Everything but what a test shortens.
const PATIENT: Patience =
    Patience { comfortable: 10, most: 20, first_byte: LONG, idle: LONG, crowded: LONG, unread: LONG };

struct Server {
    address: SocketAddr,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(patience: Patience, router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let closing = CancellationToken::new();
        let task = tokio::spawn(serve(listener, TowerToHyperService::new(router), patience, closing.clone()));
        Self { address, closing, task }
    }

    async fn hello(patience: Patience) -> Self {
        Self::start(patience, Router::new().route("/", get(|| async { "hello" }))).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }
}

/// Sends bytes and reads until the answer has come, and leaves the connection open.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("it takes them");
    let (mut answer, mut piece) = (String::new(), [0; 1024]);
    while !answer.ends_with("hello") {
        let bytes = timeout(LONG, stream.read(&mut piece)).await.expect("it answers").expect("it is there");
        assert_ne!(bytes, 0, "it ended after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..bytes]).expect("text"));
    }
    answer
}

/// Sends bytes and reads until the other side closes.
async fn rest_of(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("it takes them");
    rest(stream).await
}

/// What comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    String::from_utf8(rest).expect("text")
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Server::hello(PATIENT).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        assert!(ask(&mut stream, REQUEST).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn silence_is_not_borne_for_long() {
    let server = Server::hello(Patience { first_byte: SHORT, ..PATIENT }).await;
    assert_eq!(rest(&mut server.connect().await).await, "");
}

#[tokio::test]
async fn a_head_that_drips_is_not_borne_for_long() {
    let server = Server::hello(Patience { idle: SHORT, ..PATIENT }).await;
    let start = Instant::now();
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.expect("it takes them");
    // Each byte comes in time, the whole does not.
    while stream.write_all(b"y").await.is_ok() && start.elapsed() < LONG {
        tokio::time::sleep(SHORT / 10).await;
    }
    assert!(!rest(&mut stream).await.contains("200"));
    assert!(start.elapsed() < LONG);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::hello(Patience { idle: SOON, ..PATIENT }).await;
    let mut stream = server.connect().await;
    ask(&mut stream, REQUEST).await;
    assert_eq!(rest(&mut stream).await, "");
}

/// Regression: as long as the first bytes may become those of HTTP/2, hyper waits for more without a limit.
#[tokio::test]
async fn a_connection_that_does_not_say_which_http_it_speaks_is_closed() {
    let server = Server::hello(Patience { idle: SHORT, ..PATIENT }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HT").await.expect("it takes them");
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn an_idle_connection_of_http2_is_closed() {
    let server = Server::hello(Patience { idle: SOON, ..PATIENT }).await;
    let mut stream = server.connect().await;
    // The preface and empty settings, and nothing more: not even an answer to the farewell.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("it takes them");
    let mut told = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut told)).await.expect("it ends");
    // The type of a frame is its fourth byte; GOAWAY is 7.
    assert!(told.windows(9).any(|head| head[..4] == [0, 0, 8, 7]), "{told:?}");
}

#[tokio::test]
async fn an_answer_that_takes_long_is_no_idleness() {
    let parts = async || {
        let parts = futures::stream::unfold(0, async |count| {
            tokio::time::sleep(SOON / 3).await;
            let part = if count == 5 { "hello" } else { "." };
            (count < 6).then_some((Ok::<_, Infallible>(part), count + 1))
        });
        Body::from_stream(parts)
    };
    let server =
        Server::start(Patience { idle: SOON, ..PATIENT }, Router::new().route("/", get(parts))).await;
    let mut stream = server.connect().await;
    assert!(rest_of(&mut stream, REQUEST).await.contains("hello"));
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let server = Server::hello(PATIENT).await;
    let mut stream = server.connect().await;
    let request = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    // It may close before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_crowd_does_not_keep_others_out() {
    let server = Server::hello(Patience { comfortable: 2, most: 4, crowded: SOON, ..PATIENT }).await;
    let mut idle = [server.connect().await, server.connect().await];
    for stream in &mut idle {
        ask(stream, REQUEST).await;
    }
    // These take the rest and say nothing; one more waits for its place.
    let _silent = [server.connect().await, server.connect().await];
    let mut other = server.connect().await;
    let answer = ask(&mut other, REQUEST).await;
    assert!(answer.contains("connection: close"), "{answer}");
    // Who was there before the crowd is still served.
    assert!(ask(&mut idle[0], REQUEST).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let body = "x".repeat(64 << 20);
    let router = Router::new().route("/", get(move || async move { body }));
    let patience = Patience { comfortable: 1, most: 1, unread: 5 * SHORT, ..PATIENT };
    let server = Server::start(patience, router).await;
    let mut greedy = server.connect().await;
    greedy.write_all(REQUEST.as_bytes()).await.expect("it takes them");
    // The only place is free again once the first one is gone.
    let mut other = server.connect().await;
    other.write_all(REQUEST.as_bytes()).await.expect("it takes them");
    let mut byte = [0];
    let answered = timeout(LONG, other.read_exact(&mut byte)).await;
    answered.expect("it answers").expect("it is there");
}

#[tokio::test]
async fn the_end_waits_for_what_is_in_hand_and_for_nothing_else() {
    static BEGUN: Notify = Notify::const_new();
    static GO: Notify = Notify::const_new();
    let slow = get(|| async {
        BEGUN.notify_one();
        GO.notified().await;
        "hello"
    });
    let server = Server::start(PATIENT, Router::new().route("/", slow)).await;
    let (mut silent, mut busy) = (server.connect().await, server.connect().await);
    let answered = tokio::spawn(async move { ask(&mut busy, REQUEST).await });
    BEGUN.notified().await;
    server.closing.cancel();
    assert_eq!(rest(&mut silent).await, "");
    assert!(!server.task.is_finished());
    GO.notify_one();
    assert!(answered.await.expect("no panic").starts_with("HTTP/1.1 200"));
    timeout(LONG, server.task).await.expect("it ends").expect("no panic");
}
