//! What is logged of a request, and what never is.

use std::{
    io,
    sync::{Arc, Mutex},
};

use http::header::AUTHORIZATION;
use operator::gateway::{
    availability::Service,
    keys::{Allowance, ApiKey, KeyHash},
};
use serde_json::Value;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::support::*;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Takes what this thread logs, which is all that runs in a test of one thread.
    fn start(&self, filter: &str) -> tracing::subscriber::DefaultGuard {
        let logs =
            tracing_subscriber::fmt().with_writer(self.clone()).with_env_filter(EnvFilter::new(filter));
        tracing::subscriber::set_default(logs.json().flatten_event(true).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| line["target"] == "access").collect()
    }
}

/// Asks a service that wants the key `opensesame`.
async fn ask(setup: Setup) {
    let bench = Bench::start_with(setup).await;
    let hash = Some(KeyHash::of(b"opensesame"));
    let keys = vec![ApiKey { name: "search".to_owned(), hash, allowance: Allowance::default() }];
    bench.add(Service { keys, ..service("team/minilm") }, &[telling_pod("a").await]);
    for key in ["opensesame", "opensimsim"] {
        let mut request = post("minilm.team", "/get_vector_simple?sentence=privateword", "privateword");
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {key}").parse().expect("a value"));
        bench.ask(request).await;
    }
    eventually(|| bench.metrics().contains("requests_in_flight 0\n")).await;
}

#[tokio::test]
async fn a_request_is_a_line_without_what_is_private() {
    let log = Log::default();
    let logging = log.start("trace");
    ask(Setup { access_log: true, ..Setup::default() }).await;
    drop(logging);
    let [answered, refused] = log.lines().try_into().expect("a line for each request");
    assert_eq!(answered["level"], "INFO");
    assert_eq!((&answered["method"], &answered["route"]), (&"POST".into(), &"host".into()));
    assert_eq!((&answered["service"], &answered["key"]), (&"team/minilm".into(), &"search".into()));
    assert_eq!(answered["status"], 200);
    assert!(answered["seconds"].as_f64().is_some_and(|seconds| seconds > 0.));
    assert_eq!((&refused["status"], refused.get("service"), refused.get("key")), (&401.into(), None, None));
    // Of our own, at whatever level: other crates' are theirs, and off unless asked for.
    let ours = log.text().lines().filter(|line| !line.contains("\"target\":\"h")).collect::<String>();
    for private in ["privateword", "opensesame", "opensimsim", &KeyHash::of(b"opensesame").to_string()] {
        assert!(!ours.contains(private), "{private} is in\n{ours}");
    }
}

#[tokio::test]
async fn unless_asked_for_it_is_a_line_for_debugging() {
    let log = Log::default();
    let logging = log.start("info");
    ask(Setup::default()).await;
    drop(logging);
    assert_eq!(log.lines(), Vec::<Value>::new());
    let logging = log.start("info,access=debug");
    ask(Setup::default()).await;
    drop(logging);
    assert_eq!(log.lines().len(), 2);
}
