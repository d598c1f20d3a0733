//! Pods that compute nothing: each request is answered at once, as a real pod would answer it.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kembed_queue::{
    credit::{GRANTED_HEADER, POD_LOAD_HEADER, PodLoad},
    wire::{INFO_PATH, SPACE_HEADER},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{client::block_on, world::SPACE};

/// It has room for all that ever comes at a time.
const LOAD: PodLoad = PodLoad { credit: 1 << 20, work: 16, rate: 1_000_000, sessions: 2 };

/// Letters of a vector of 384 numbers in base64.
const VECTOR: usize = 2048;

/// Starts pods that share a thread: one at each address of this machine, all at the port that is given back.
pub fn start() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    listener.set_nonblocking(true).expect("an open socket");
    std::thread::spawn(move || block_on(serve(listener)));
    port
}

async fn serve(listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("a runtime");
    let vector = "A".repeat(VECTOR);
    let vector = Bytes::from(json!({"data": [{"index": 0, "embedding": vector}]}).to_string());
    loop {
        let (stream, _) = listener.accept().await.expect("there are files");
        stream.set_nodelay(true).expect("an open socket");
        let vector = vector.clone();
        let service = service_fn(move |request| answer(request, vector.clone()));
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, vector: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == INFO_PATH {
        return Ok(Response::new(info().into()));
    }
    let _ = body.collect().await;
    let answer = Response::builder().header("content-type", "application/json").header(SPACE_HEADER, SPACE);
    let answer = answer.header("server-timing", "tokenise;dur=0.02, run;dur=0.1");
    let answer = match head.headers.contains_key(GRANTED_HEADER) {
        true => answer.header(POD_LOAD_HEADER, LOAD.to_string()),
        false => answer,
    };
    Ok(answer.body(Full::new(vector)).expect("good headers"))
}

/// What a pod tells of itself.
pub fn info() -> String {
    let space = json!({"digest": SPACE, "dimension": 384, "maxTokens": 256});
    json!({"model_id": "hf://a/b", "max_input_length": 256, "version": "0", "space": space}).to_string()
}

/// The first of these pods.
pub fn first(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
