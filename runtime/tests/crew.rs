//! Threads that serve connections.

use std::{collections::HashMap, num::NonZeroUsize, thread};

use kembed_runtime::crew::Crew;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use tokio_util::sync::CancellationToken;

fn crew(threads: usize) -> Crew {
    Crew::of(NonZeroUsize::new(threads).expect("more than none")).expect("threads")
}

/// A client and its connection.
async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().expect("it is bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("it listens"), accepted.expect("a client").0)
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// Answers one byte by the next number, and says on which thread it began and ended.
async fn answer(mut stream: TcpStream, tell: UnboundedSender<[thread::ThreadId; 2]>) {
    let began = thread::current().id();
    let byte = stream.read_u8().await.expect("a byte");
    stream.write_u8(byte + 1).await.expect("a client");
    tell.send([began, thread::current().id()]).expect("somebody listens");
}

#[tokio::test]
async fn connections_are_spread_and_stay_where_they_began() {
    let (crew, listener) = (crew(3), listener().await);
    let (tell, mut told) = unbounded_channel();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let (client, stream) = pair(&listener).await;
        let tell = tell.clone();
        crew.serve(stream, |stream| answer(stream, tell));
        clients.push(client);
    }
    drop(tell);
    // Only now, so that none ends before all have begun.
    for client in &mut clients {
        client.write_u8(1).await.expect("it is served");
        assert_eq!(client.read_u8().await.expect("an answer"), 2);
    }
    let mut counts = HashMap::new();
    while let Some([began, ended]) = told.recv().await {
        assert_eq!(began, ended);
        assert_ne!(began, thread::current().id());
        *counts.entry(began).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[tokio::test]
async fn it_ends_with_its_last_clone() {
    let (crew, ended) = (crew(1), CancellationToken::new());
    let (mut client, stream) = pair(&listener().await).await;
    let ends = ended.clone().drop_guard();
    crew.serve(stream, |mut stream| async move {
        let _ends = ends;
        stream.write_u8(1).await.expect("a client");
        std::future::pending().await
    });
    assert_eq!(client.read_u8().await.expect("it has begun"), 1);
    drop(crew.clone());
    assert!(!ended.is_cancelled());
    drop(crew);
    ended.cancelled().await;
}
