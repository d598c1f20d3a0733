//! Traces of two gateways, which are programs of their own: a process has traces or not, whatever is tested in it.

use std::{
    io::Write,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get as answer, post as take},
};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use prost::Message;
use serde_json::json;

use crate::{
    cluster::{GATEWAYS, api_server, stored_gateway},
    stub::{load, no_credit},
    support::*,
};

const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
const CALLER: u64 = 0xb7ad_6b71_6920_3331;

/// A gateway that runs; killed when a test ends early.
struct Program {
    child: Child,
    requests: SocketAddr,
    health: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
    }
}

impl Program {
    async fn start(name: &str, internal: SocketAddr, kubeconfig: &str, variables: &[(&str, &str)]) -> Self {
        let (requests, health) = (nobody(), nobody());
        let child = Command::new(env!("CARGO_BIN_EXE_operator"))
            .args(["gateway", "--drain-delay=0s", "--peers", GATEWAYS])
            .args([format!("--listen={requests}"), format!("--health-listen={health}")])
            .arg(format!("--internal-listen={internal}"))
            .env_clear()
            .envs([("KUBECONFIG", kubeconfig), ("POD_NAMESPACE", "kembed"), ("POD_NAME", name)])
            .envs(variables.iter().copied())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { child, requests, health }
    }

    async fn knows(&self, line: &str) {
        let look = async {
            loop {
                let metrics = ask(self.health, "/metrics", HeaderMap::new()).await;
                if metrics.is_some_and(|answer| String::from_utf8_lossy(&answer.body).contains(line)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("it came to know");
    }

    /// Waits until a pod answers, of which no trace is recorded.
    async fn serves(&self, path: &str) {
        let unrecorded = format!("00-{TRACE:032x}-{CALLER:016x}-00").parse().expect("a value");
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), unrecorded)]);
        let look = async {
            while ask(self.requests, path, headers.clone()).await.is_none_or(|answer| answer.status != 200) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("it came to serve");
    }

    fn end(&mut self) {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        assert!(self.child.wait().expect("it ends").success());
    }
}

async fn ask(at: SocketAddr, path: &str, headers: HeaderMap) -> Option<Answer> {
    let mut request = Request::get(format!("http://{at}{path}")).body(Full::<Bytes>::default()).ok()?;
    request.headers_mut().extend(headers);
    let client = Client::builder(TokioExecutor::new()).build_http();
    Some(read(client.request(request).await.ok()?).await)
}

/// A pod that has no credit at first, and remembers the trace that it was told.
#[derive(Clone, Default)]
struct Pod(Arc<Mutex<Vec<String>>>);

impl Pod {
    async fn start(&self) -> SocketAddr {
        let info = json!({
            "model_id": "hf://a/b", "max_input_length": 256, "version": "0",
            "space": {"digest": SPACE, "dimension": 3, "maxTokens": 256},
        });
        let router = Router::new().route("/info", answer(async move || Json(info)));
        pod_with(router.fallback(Self::embed).with_state(self.clone())).await
    }

    async fn embed(State(pod): State<Self>, headers: HeaderMap) -> impl IntoResponse {
        let text =
            |name: &str| headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned();
        let told = format!("{} {}", text("traceparent"), text("tracestate"));
        let mut known = pod.0.lock().expect("no panic");
        known.push(told);
        if known.len() == 1 {
            let mut answer = no_credit();
            let load = load(1, 0).to_string().parse().expect("digits");
            answer.headers_mut().insert("x-kembed-pod-load", load);
            return answer.map(Full::new).into_response();
        }
        "vector".into_response()
    }

    fn told(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

/// What a collector of traces was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<TracesData>>>);

impl Collector {
    async fn start(&self) -> String {
        let router = Router::new().route("/v1/traces", take(Self::collect)).with_state(self.clone());
        format!("http://{}", pod_with(router).await)
    }

    async fn collect(State(collector): State<Self>, body: Bytes) {
        collector.0.lock().expect("no panic").push(TracesData::decode(body).expect("a message"));
    }

    fn spans(&self) -> Vec<Span> {
        let sent = self.0.lock().expect("no panic");
        let resources = sent.iter().flat_map(|data| &data.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }
}

/// Asks each of two gateways once for the same vector, with this `traceparent`, and ends them. Gives what the pod was told.
async fn asked(variables: &[(&str, &str)], flags: &str) -> Vec<String> {
    let pod = Pod::default();
    let api = api_server(pod.start().await).await;
    let mut kubeconfig = tempfile::NamedTempFile::new().expect("a temporary file");
    let config = json!({"current-context": "test", "clusters": [{"name": "test", "cluster": {
        "server": format!("http://{}", api.address)}}], "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]});
    kubeconfig.write_all(config.to_string().as_bytes()).expect("it can be written");
    let path = kubeconfig.path().to_str().expect("a plain path");
    let (names, at) = (["gateway-0", "gateway-1"], [nobody(), nobody()]);
    (0..2).for_each(|i| api.gateways.put(stored_gateway(names[i], at[i])));
    let mut gateways = Vec::new();
    for (name, at) in names.into_iter().zip(at) {
        gateways.push(Program::start(name, at, path, variables).await);
    }
    for gateway in &gateways {
        gateway.knows("kembed_gateway_peers 1\n").await;
        gateway.serves("/team/minilm/info").await;
    }
    let headers: HeaderMap = [
        ("traceparent", format!("00-{TRACE:032x}-{CALLER:016x}-{flags}")),
        ("tracestate", "vendor=1".to_owned()),
        ("authorization", "Bearer a-secret-key".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
    .collect();
    for gateway in &gateways {
        let path = "/team/minilm/get_vector_simple?sentence=a%20secret";
        let answer = ask(gateway.requests, path, headers.clone()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let refused = ask(gateways[0].requests, "/team/none/secret", headers).await.expect("an answer");
    assert_eq!(refused.status, 404);
    // What is still to be sent comes before the end, for which the collector must be able to answer.
    tokio::task::spawn_blocking(move || gateways.iter_mut().for_each(Program::end)).await.expect("they end");
    pod.told()
}

fn attribute(span: &Span, key: &str) -> String {
    let value = span.attributes.iter().find(|attribute| attribute.key == key);
    value.map_or_else(String::new, |attribute| format!("{:?}", attribute.value))
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_trace_goes_on_through_both_gateways_to_the_pod() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let told = asked(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)], "01").await;
    let spans = collector.spans();
    let text = format!("{spans:#?}");
    assert!(!text.contains("secret"), "{text}");
    assert!(spans.iter().all(|span| span.trace_id == TRACE.to_be_bytes()), "{text}");
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let inside = |name: &str, parent: &Span| {
        let all = named(name).into_iter().filter(|span| span.parent_span_id == parent.span_id);
        all.collect::<Vec<_>>()
    };

    // Two requests, of which one was forwarded, and one for nothing.
    let requests = named("GET");
    let from_client = requests.iter().filter(|span| span.parent_span_id == CALLER.to_be_bytes());
    assert_eq!((requests.len(), from_client.count()), (4, 3), "{text}");
    let [forward] = named("forward")[..] else { panic!("one was forwarded: {text}") };
    assert!(attribute(forward, "kembed.gateway").contains("gateway-"), "{text}");
    let [forwarded] = inside("GET", forward)[..] else { panic!("it arrived: {text}") };
    assert!(attribute(forwarded, "kembed.route").contains("forwarded"), "{text}");
    assert!(attribute(forwarded, "kembed.service").contains("team/minilm"), "{text}");
    assert!(attribute(forwarded, "http.response.status_code").contains("200"), "{text}");
    assert!(
        requests.iter().any(|span| attribute(span, "http.response.status_code").contains("404")),
        "{text}"
    );

    // The pod had no credit for the first of them, which waited.
    let attempts = named("attempt");
    let outcomes: Vec<_> = attempts.iter().map(|span| attribute(span, "kembed.outcome")).collect();
    let of = |word: &str| outcomes.iter().filter(|outcome| outcome.contains(word)).count();
    assert_eq!((of("no_credit"), of("answered"), outcomes.len()), (1, 2, 3), "{text}");
    assert!(attempts.iter().all(|span| attribute(span, "kembed.pod").contains("minilm-1")), "{text}");
    let [hold] = named("hold")[..] else { panic!("one waited: {text}") };
    assert!(requests.iter().any(|span| span.span_id == hold.parent_span_id), "{text}");
    assert!(hold.start_time_unix_nano <= hold.end_time_unix_nano, "{text}");

    // And each time it was told which attempt it is.
    let parents = attempts.iter().map(|span| format!("00-{TRACE:032x}-{}-01 vendor=1", hex(&span.span_id)));
    let (mut parents, mut told) = (parents.collect::<Vec<_>>(), told);
    parents.sort();
    told.sort();
    assert_eq!(told, parents);
}

#[tokio::test]
async fn a_trace_that_its_client_does_not_record_is_passed_on_and_not_sent() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let told = asked(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)], "00").await;
    assert_eq!(collector.spans(), []);
    let (start, end) = (format!("00-{TRACE:032x}-"), "-00 vendor=1");
    assert!(
        told.len() == 3 && told.iter().all(|told| told.starts_with(&start) && told.ends_with(end)),
        "{told:?}"
    );
}

#[tokio::test]
async fn without_a_collector_traces_pass_untouched() {
    let told = asked(&[], "01").await;
    let all = format!("00-{TRACE:032x}-{CALLER:016x}-01 vendor=1");
    assert_eq!(told, vec![all; 3]);
}
