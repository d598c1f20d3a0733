//! Connections to pods, which are kept and carry one request at a time.
//!
//! A connection has no task of its own: whoever waits for something to come over it drives it. A request and its
//! connection would otherwise wake each other, on two threads, for each of its parts.

use std::{
    collections::HashMap,
    error::Error,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    runtime::{self, Handle},
    time::{sleep, timeout},
};

/// A pod in the same cluster answers within a millisecond, or its node is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may be silent while an answer is waited for before its other end is asked, by TCP itself,
/// whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How often that is asked, and how many times, before the connection counts as broken: so a node that dies is noticed
/// within six seconds.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_ALIVE_RETRIES: u32 = 4;

/// How often idle connections are looked through. Those that were idle the time before are closed: much earlier than pods close
/// them, so that none is used just when its pod does.
const TURN: Duration = Duration::from_secs(5);

/// Idle connections of one thread kept to one pod: as many as have a request when the gateway is busy, about 20 kB each.
const IDLE_CONNECTIONS: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody accepted a connection.
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    /// The connection closed before any of the request was written.
    #[error("the connection closed before the request was sent")]
    Unsent(#[source] hyper::Error),
    /// Some of it may have been.
    #[error("the connection broke off")]
    Broke(#[source] hyper::Error),
}

impl SendError {
    /// Whether the other end cannot have seen any of the request.
    pub fn nothing_was_sent(&self) -> bool {
        !matches!(self, Self::Broke(_))
    }
}

/// What may be sent.
pub trait Sendable:
    Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> Sendable for B where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

/// Which runtime hears of what comes over a connection, and where it leads to. On another runtime's thread a connection would
/// be of use too, but each of its parts would come by way of two threads.
type Place = (runtime::Id, SocketAddr);

/// Connections that have nothing to do. Clones share them.
pub struct Connections<B: Sendable>(Arc<Mutex<Shelf<B>>>);

/// Those of one place. Those used last come last, each with the turn in which that was: a clock would be read twice for each
/// request.
type Idle<B> = Vec<(u64, Box<Connection<B>>)>;

struct Shelf<B: Sendable> {
    idle: HashMap<Place, Idle<B>, RandomState>,
    /// Times that they were looked through.
    turn: u64,
    /// Whether they are.
    is_tended: bool,
}

/// One that is open, or was. In a box, for it is passed on with each answer.
struct Connection<B: Sendable> {
    place: Place,
    sender: http1::SendRequest<B>,
    /// `None` once it has ended. What was to be sent and was not comes back when this is dropped.
    driver: Option<http1::Connection<TokioIo<TcpStream>, B>>,
}

/// The body of an answer. It drives the connection that it comes over, and gives it back when all of it has come.
pub struct Carried<B: Sendable> {
    body: Incoming,
    is_whole: bool,
    /// `None` once it is given back.
    connection: Option<Box<Connection<B>>>,
    home: Connections<B>,
}

impl<B: Sendable> Connections<B> {
    /// Sends a request, of which the URL is no more than path and query, and gives back the answer, of which the body may
    /// still be coming.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(
        &self,
        address: SocketAddr,
        mut request: Request<B>,
    ) -> Result<Response<Carried<B>>, SendError> {
        let place = (Handle::current().id(), address);
        // The other end may just have closed one that was kept. It has seen nothing then, and another one is used.
        while let Some(mut connection) = self.take(place) {
            match connection.exchange(request).await {
                Ok(response) => return Ok(self.carried(connection, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Broke(error.into_error())),
                },
            }
        }
        let mut connection = Connection::open(place).await?;
        match connection.exchange(request).await {
            Ok(response) => Ok(self.carried(connection, response)),
            Err(mut error) => match error.take_message() {
                Some(_) => Err(SendError::Unsent(error.into_error())),
                None => Err(SendError::Broke(error.into_error())),
            },
        }
    }

    fn carried(&self, connection: Box<Connection<B>>, response: Response<Incoming>) -> Response<Carried<B>> {
        let home = self.clone();
        response.map(|body| Carried { body, is_whole: false, connection: Some(connection), home })
    }

    /// One from here to there, which may have been closed there meanwhile: who sends something over it hears of that.
    fn take(&self, place: Place) -> Option<Box<Connection<B>>> {
        self.shelf().idle.get_mut(&place)?.pop().map(|(_, connection)| connection)
    }

    /// Keeps one over which all of an answer has come, if another request can be sent.
    fn put(&self, mut connection: Box<Connection<B>>) {
        // As a rule it has waited for one since it read the end of that answer, and need not be driven there.
        if !connection.sender.is_ready() && !connection.is_idle() {
            return;
        }
        let mut shelf = self.shelf();
        let turn = shelf.turn;
        let idle = shelf.idle.entry(connection.place).or_default();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((turn, connection));
        }
        // Without a runtime the program is about to end.
        if !shelf.is_tended
            && let Ok(runtime) = Handle::try_current()
        {
            shelf.is_tended = true;
            runtime.spawn(tend(Arc::downgrade(&self.0)));
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<B>> {
        // Nothing in there panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Sendable> Default for Connections<B> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Shelf { idle: HashMap::default(), turn: 0, is_tended: false })))
    }
}

impl<B: Sendable> Clone for Connections<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Closes those that have lain too long, as long as there are any.
async fn tend<B: Sendable>(shelf: Weak<Mutex<Shelf<B>>>) {
    loop {
        sleep(TURN).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = shelf.turn;
        for idle in shelf.idle.values_mut() {
            idle.retain(|(last, _)| *last == turn);
        }
        shelf.turn += 1;
        shelf.idle.retain(|_, idle| !idle.is_empty());
        if shelf.idle.is_empty() {
            shelf.is_tended = false;
            return;
        }
    }
}

impl<B: Sendable> Connection<B> {
    async fn open(place: Place) -> Result<Box<Self>, SendError> {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(place.1)).await;
        let stream = connected.unwrap_or_else(|late| Err(late.into())).map_err(SendError::Connect)?;
        // Without any of these it is only slower, or slower to notice that the other end is gone.
        let _ = stream.set_nodelay(true);
        let socket = SockRef::from(&stream);
        let asking = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_INTERVAL);
        let _ = socket.set_tcp_keepalive(&asking.with_retries(KEEP_ALIVE_RETRIES));
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_user_timeout(Some(KEEP_ALIVE + KEEP_ALIVE_INTERVAL * KEEP_ALIVE_RETRIES));
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = opened.map_err(SendError::Unsent)?;
        Ok(Box::new(Self { place, sender, driver: Some(driver) }))
    }

    /// Sends a request, and waits for the head of its answer. A request that was not sent comes back with the error.
    async fn exchange(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|context| {
            // If it ends, the answer tells how.
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Does what can be done now.
    fn drive(&mut self, context: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| Pin::new(driver).poll(context).is_ready()) {
            self.driver = None;
        }
    }

    /// Whether another request can be sent. Nobody is told when that changes.
    fn is_idle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl<B: Sendable> Body for Carried<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.body).poll_frame(context);
        if let (Poll::Pending, Some(connection)) = (&frame, &mut this.connection) {
            connection.drive(context);
            frame = Pin::new(&mut this.body).poll_frame(context);
        }
        let frame = ready!(frame);
        this.is_whole = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Sendable> Drop for Carried<B> {
    fn drop(&mut self) {
        if let Some(connection) =
            self.connection.take().filter(|_| self.is_whole || self.body.is_end_stream())
        {
            self.home.put(connection);
        }
    }
}

impl<B: Sendable> std::fmt::Debug for Carried<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.body.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    type Connections = super::Connections<Full<Bytes>>;

    async fn pod() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    }

    fn request() -> Request<Full<Bytes>> {
        Request::post("/embed").header("host", "pod").body(Full::from("text")).expect("a request")
    }

    /// Reads one request, and writes this.
    async fn answer(stream: &mut TcpStream, text: &str) {
        let mut read = Vec::new();
        while !read.ends_with(b"text") {
            assert_ne!(stream.read_buf(&mut read).await.expect("a request"), 0, "all of it");
        }
        stream.write_all(text.as_bytes()).await.expect("a client");
    }

    const VECTOR: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nvector";

    /// Sends a request, and reads its answer to the end.
    async fn ask(connections: &Connections, address: SocketAddr) -> Bytes {
        let response = connections.send(address, request()).await.expect("an answer");
        response.into_body().collect().await.expect("a whole body").to_bytes()
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let (listener, address) = pod().await;
        let connections = Connections::default();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            answer(&mut stream, VECTOR).await;
            answer(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
                .await;
            answer(&mut stream, VECTOR).await;
        };
        let ask = async {
            let first = ask(&connections, address).await;
            [first, ask(&connections, address).await, ask(&connections, address).await]
        };
        let ((), answers) = tokio::join!(serve, ask);
        assert_eq!(answers, ["vector", "abc", "vector"]);
    }

    #[tokio::test]
    async fn one_that_was_closed_meanwhile_costs_nothing() {
        let (listener, address) = pod().await;
        let connections = Connections::default();
        for _ in 0..3 {
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                answer(&mut stream, VECTOR).await;
                stream.shutdown().await.expect("an open connection");
            };
            let ((), answer) = tokio::join!(serve, ask(&connections, address));
            assert_eq!(answer, "vector");
        }
    }

    #[tokio::test]
    async fn half_an_answer_ends_its_connection() {
        let (listener, address) = pod().await;
        let connections = Connections::default();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nvec").await;
            assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0, "it is closed");
            let (mut stream, _) = listener.accept().await.expect("another connection");
            answer(&mut stream, VECTOR).await;
        };
        let ask = async {
            let response = connections.send(address, request()).await.expect("an answer");
            let mut body = response.into_body();
            body.frame().await.expect("a part").expect("a part");
            drop(body);
            ask(&connections, address).await
        };
        assert_eq!(tokio::join!(serve, ask).1, "vector");
    }

    #[tokio::test]
    async fn what_was_sent_is_known_of_each_failure() {
        // An address at which nobody takes the port once it is free.
        let listener = TcpListener::bind("127.0.0.9:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Connections::default();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            answer(&mut stream, "").await;
            drop((stream, listener));
        };
        let ((), died) = tokio::join!(serve, connections.send(address, request()));
        assert!(!died.expect_err("it died").nothing_was_sent());
        let refused = connections.send(address, request()).await;
        assert!(refused.expect_err("nobody listens").nothing_was_sent());
    }

    #[tokio::test]
    async fn who_leaves_takes_the_connection_along() {
        let (listener, address) = pod().await;
        let connections = Connections::default();
        let asking = tokio::spawn(async move { connections.send(address, request()).await.map(drop) });
        let (mut stream, _) = listener.accept().await.expect("a client");
        answer(&mut stream, "").await;
        asking.abort();
        assert_eq!(stream.read(&mut [0]).await.expect("an end"), 0, "it is closed");
    }
}
