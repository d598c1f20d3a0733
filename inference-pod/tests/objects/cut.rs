//! A wire that breaks once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Passes connections on, and cuts the first one that brings more than so many bytes.
pub struct Cut {
    pub address: String,
    wire: Arc<Wire>,
}

struct Wire {
    to: String,
    after: u64,
    was_cut: AtomicBool,
    brought: AtomicU64,
}

impl Cut {
    pub async fn start(to: &str, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let wire = Wire { to: to.into(), after, was_cut: Default::default(), brought: Default::default() };
        let wire = Arc::new(wire);
        let passing = wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, passing.clone()));
            }
        });
        Self { address, wire }
    }

    pub fn was_cut(&self) -> bool {
        self.wire.was_cut.load(Ordering::SeqCst)
    }

    /// Bytes that came from the other side.
    pub fn brought(&self) -> u64 {
        self.wire.brought.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, wire: Arc<Wire>) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(&wire.to).await?.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let (mut buffer, mut brought) = (vec![0; 16 << 10], 0);
    loop {
        let read = from_server.read(&mut buffer).await?;
        brought += read as u64;
        wire.brought.fetch_add(read as u64, Ordering::SeqCst);
        if read == 0 || (brought > wire.after && !wire.was_cut.swap(true, Ordering::SeqCst)) {
            up.abort();
            return Ok(());
        }
        to_client.write_all(&buffer[..read]).await?;
    }
}
