//! A running gateway, pods to put behind it, and a client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::Request as PodRequest, response::IntoResponse};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use kembed_runtime::server::Patience;
use operator::gateway::{
    activation::Activation,
    answer::{Gateway, Limits},
    availability::{Life, Pod, PodName, ReadyCondition, Service},
    directory::Update,
    forward,
    internal::{self, Internal},
    knowledge::Knowledge,
    link,
    metrics::Metrics,
    name::ServiceName,
    peers::Peers,
    reviews::Reviews,
    server::{self, Drain},
    service_queue::WaitLimits,
    usage::KeyUsage,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The space that services have recorded.
pub const SPACE: &str = "sha256:one";

/// The controller's user name.
pub const CONTROLLER: &str = "system:serviceaccount:kembed:kembed-controller";

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What can be set about a gateway.
pub struct Setup {
    pub limits: Limits,
    pub drain: Drain,
    pub patience: Patience,
    pub access_log: bool,
    /// Name of a gateway that is one of several.
    pub name: Option<String>,
    /// With the others.
    pub trust: link::Patience,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits {
                body: 1024,
                bodies: 64 * 1024,
                request_timeout: PATIENCE,
                wait: WaitLimits { requests: 10_000, bytes: 64 * 1024, time: PATIENCE },
            },
            drain: Drain { delay: Duration::ZERO, timeout: PATIENCE },
            patience: Patience::default(),
            access_log: false,
            name: None,
            trust: link::Patience { opening: PATIENCE, silence: PATIENCE },
        }
    }
}

/// A gateway on a port of its own, which was told that there is nothing yet.
pub struct Bench {
    pub address: SocketAddr,
    pub gateway: Arc<Gateway>,
    pub knowledge: Arc<Knowledge>,
    pub shutdown: CancellationToken,
    pub server: JoinHandle<()>,
    pub registry: Registry,
    pub peers: Arc<Peers>,
    /// Where it takes what other gateways forward.
    pub internal: SocketAddr,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Bench {
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub async fn start_with(setup: Setup) -> Self {
        let Setup { limits, drain, patience, access_log, name, trust } = setup;
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry).with_access_log(access_log);
        let (knowledge, shutdown) = (Arc::new(Knowledge::new(metrics.clone())), CancellationToken::new());
        registry.register_collector(Box::new(KeyUsage::new(knowledge.clone())));
        let activation = Activation::assumed();
        let peers = Arc::new(match name {
            Some(name) => Peers::new(name, shutdown.clone(), metrics.clone()).with_patience(trust),
            None => Peers::alone(shutdown.clone(), metrics.clone()),
        });
        let gateway =
            Gateway::new(knowledge.clone(), peers.clone(), metrics, limits, activation, shutdown.clone());
        let gateway = Arc::new(gateway);
        tokio::spawn(gateway.owner().clone().run(drain.closing(shutdown.clone())));
        knowledge.update(|directory| {
            directory.update_services(Update::All(vec![]));
            directory.update_pods(Update::All(vec![]));
        });
        let (forwarded, internal) = listener().await;
        let reviews = Reviews::new(no_api_server(), None);
        let others = Internal::new(gateway.load().clone(), knowledge.clone(), reviews);
        tokio::spawn(internal::serve(None, forwarded, Arc::new(others), forward::taker(gateway.clone())));
        let (listener, address) = listener().await;
        let server =
            tokio::spawn(server::serve(None, listener, gateway.clone(), patience, drain, shutdown.clone()));
        let giving_way = gateway.clone();
        tokio::spawn(async move { giving_way.give_way().await });
        Self { address, gateway, knowledge, shutdown, server, registry, peers, internal }
    }

    /// Makes a service known, with pods at these addresses that reported the recorded space.
    pub fn add(&self, service: Service, pods: &[SocketAddr]) {
        let pods: Vec<_> =
            pods.iter().enumerate().map(|(i, at)| pod(&service.name, &format!("pod-{i}"), *at)).collect();
        self.knowledge.update(|directory| {
            directory.update_services(Update::Put(service));
            pods.into_iter().for_each(|pod| directory.update_pods(Update::Put(pod)));
            let asked: Vec<_> = directory.unproven().collect();
            asked.iter().for_each(|probe| directory.proven(probe, SPACE.to_owned()));
        });
    }

    /// Sends a request over a connection of its own, and reads the answer to its end.
    pub async fn ask<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        read(self.send(request).await).await
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        self.try_send(request).await.expect("an answer")
    }

    /// As [`Bench::send`], also where the connection ends before the answer's head has come.
    pub async fn try_send<B>(
        &self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let path = request.uri().path_and_query().expect("the test's own path").clone();
        *request.uri_mut() = format!("http://{}{path}", self.address).parse().expect("a URL");
        let client = Client::builder(TokioExecutor::new()).build_http();
        timeout(PATIENCE, client.request(request)).await.expect("an answer")
    }

    /// Writes bytes to the gateway and gives back all that it answers before it closes.
    pub async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("a gateway that listens");
        stream.write_all(bytes.as_bytes()).await.expect("a gateway that reads");
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").expect("an answer");
        answer
    }

    /// Requests that wait for a pod.
    pub fn waiting(&self) -> usize {
        let metrics = self.metrics();
        let counts = metrics.lines().filter(|line| line.starts_with("kembed_gateway_waiting_requests{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }

    /// The metrics as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes all");
        text
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// `code` and `message` of an error as OpenAI clients read it.
    pub fn error(&self) -> (String, String) {
        let error = &self.json()["error"];
        let text = |field: &str| error[field].as_str().expect("a text").to_owned();
        (text("code"), text("message"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

pub async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("an end").expect("a whole body").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

/// A client of an API server that is not there.
fn no_api_server() -> kube::Client {
    // Another test of this process may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"));
    kube::Client::try_from(config).expect("a client without TLS")
}

/// `GET` with a Host.
pub fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header(HOST, host).body(Full::default()).expect("a request")
}

/// `POST` with a Host and a body.
pub fn post(host: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header(HOST, host).body(Full::new(body.into())).expect("a request")
}

pub fn name(text: &str) -> ServiceName {
    text.parse().expect("<namespace>/<name>")
}

/// A service that has recorded a space.
pub fn service(text: &str) -> Service {
    Service {
        name: name(text),
        created: 60,
        replicas: 1,
        scales: false,
        digest: Some(SPACE.to_owned()),
        revision: None,
        ready: None,
        request_timeout: None,
        keys: Vec::new(),
        queue_timeout: None,
        queued: None,
        hedge_percent: None,
    }
}

pub fn not_ready(reason: &str, message: &str) -> Option<ReadyCondition> {
    Some(ReadyCondition { holds: false, reason: reason.to_owned(), message: message.to_owned() })
}

/// A ready pod.
pub fn pod(service: &ServiceName, pod: &str, address: SocketAddr) -> Pod {
    let name =
        PodName { namespace: service.namespace().to_owned(), name: format!("{}-{pod}", service.name()) };
    Pod {
        life: Life { uid: format!("uid of {}", name.name), restarts: 0 },
        name,
        service: service.clone(),
        address: Some(address),
        ready: true,
        terminating: false,
    }
}

pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

/// A pod that answers as `router` says.
pub async fn pod_with(router: Router) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A pod that tells what it was asked.
pub async fn telling_pod(called: &'static str) -> SocketAddr {
    pod_with(Router::new().fallback(move |request: PodRequest| tell(called, request))).await
}

async fn tell(called: &'static str, request: PodRequest) -> impl IntoResponse {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let headers: serde_json::Map<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    Json(json!({
        "pod": called,
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map(ToString::to_string),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

/// An address where nobody listens, and nobody will but who is given it: ports that the system chooses are on another
/// address of this machine, and are higher.
pub fn nobody() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let port = 20_000 + GIVEN.fetch_add(1, Ordering::Relaxed) % 10_000;
    SocketAddr::from(([127, high, low, 2], port))
}

/// A pod that reads what it is sent and closes the connection without an answer.
pub async fn dying_pod() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    address
}

/// One HTTP/2 connection to the gateway.
pub async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("a gateway that listens");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Waits until something holds that nothing tells of.
pub async fn eventually(holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("it came to hold");
}
