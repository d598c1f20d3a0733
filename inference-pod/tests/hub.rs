//! Models that come from a hub or a web server, which misbehave in all the ways that they do.

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use inference_pod::{
    model::{
        digest::{hex, sha256},
        files::Network,
    },
    source::{Access, Location, Retry, Snapshot, SourceError, Variables, progress::Progress},
};
use kembed_queue::wire::FailureReason;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";
const TOKEN: &str = "hf_secret";
const WEIGHTS: &str = "model.safetensors";

fn git_sha1(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

/// What a hub does wrong, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It answers with this status.
    Status(u16),
    /// It sends half of the body and hangs up.
    HalfABody,
    /// It sends as many other bytes.
    OtherBytes,
}

/// A request that came.
struct Seen {
    path: String,
    range: Option<String>,
    authorization: Option<String>,
}

/// One repository on a hub, with files of which the weights lie elsewhere.
struct Hub {
    address: String,
    files: BTreeMap<String, Bytes>,
    main: Mutex<&'static str>,
    /// What is refused to all, or to all without a token.
    refusal: Mutex<Option<(u16, &'static str)>>,
    /// The status of files that are not there.
    lacking: Mutex<StatusCode>,
    faults: Mutex<Vec<(&'static str, Fault)>>,
    seen: Mutex<Vec<Seen>>,
    storage: Option<Arc<Hub>>,
}

impl Hub {
    /// A hub, and the other host where it stores its large files.
    async fn start() -> Arc<Self> {
        let storage = Self::listen(None).await;
        Self::listen(Some(storage)).await
    }

    async fn listen(storage: Option<Arc<Self>>) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let files =
            support::small_model().into_iter().map(|(name, bytes)| (name.into(), bytes.into())).collect();
        let hub = Arc::new(Self {
            address,
            files,
            main: Mutex::new(OLD),
            refusal: Mutex::default(),
            lacking: Mutex::new(StatusCode::NOT_FOUND),
            faults: Mutex::default(),
            seen: Mutex::default(),
            storage,
        });
        let router = Router::new().fallback(answer).with_state(hub.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        hub
    }

    fn refuse(&self, status: u16, code: &'static str) {
        *self.refusal.lock().expect("no panic") = Some((status, code));
    }

    fn fail(&self, path: &'static str, fault: Fault) {
        self.faults.lock().expect("no panic").push((path, fault));
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().expect("no panic");
        let found = faults.iter().position(|(end, _)| path.ends_with(end))?;
        Some(faults.remove(found).1)
    }

    fn stored(&self) -> &Self {
        self.storage.as_deref().expect("a hub has storage")
    }

    /// Requests whose path ends so, since the last call.
    fn take_seen(&self, end: &str) -> Vec<Seen> {
        let seen = std::mem::take(&mut *self.seen.lock().expect("no panic"));
        seen.into_iter().filter(|seen| seen.path.ends_with(end)).collect()
    }
}

async fn answer(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
    let (range, authorization) = (header(header::RANGE), header(header::AUTHORIZATION));
    hub.seen.lock().expect("no panic").push(Seen {
        path: path.clone(),
        range: range.clone(),
        authorization: authorization.clone(),
    });
    let fault = hub.fault(&path);
    if let Some(Fault::Status(status)) = fault {
        return StatusCode::from_u16(status).expect("a status").into_response();
    }
    let let_in = authorization.as_deref() == Some(&format!("Bearer {TOKEN}"));
    if let Some((status, code)) = *hub.refusal.lock().expect("no panic")
        && !let_in
    {
        let status = StatusCode::from_u16(status).expect("a status");
        return (status, [("x-error-code", code)]).into_response();
    }
    if let Some(revision) = path.strip_prefix("/api/models/a/b/revision/") {
        return describe(&hub, revision);
    }
    let name = path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/')).map(|(_, name)| name);
    let name = name.unwrap_or_else(|| path.trim_start_matches("/web/"));
    match (&hub.storage, hub.files.get(name)) {
        (_, None) => {
            (*hub.lacking.lock().expect("no panic"), [("x-error-code", "EntryNotFound")]).into_response()
        }
        (Some(storage), Some(bytes)) if name == WEIGHTS => redirect(storage, bytes),
        (_, Some(bytes)) => send(bytes, range.as_deref(), fault),
    }
}

fn describe(hub: &Hub, revision: &str) -> Response {
    let sha = match revision {
        "main" => *hub.main.lock().expect("no panic"),
        OLD | NEW => revision,
        _ => return (StatusCode::NOT_FOUND, [("x-error-code", "RevisionNotFound")]).into_response(),
    };
    let siblings: Vec<_> = hub.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
    axum::Json(serde_json::json!({"sha": sha, "siblings": siblings})).into_response()
}

fn redirect(storage: &Hub, bytes: &Bytes) -> Response {
    let headers = [
        ("location", format!("{}/resolve/x/{WEIGHTS}", storage.address)),
        ("x-linked-etag", format!("\"{}\"", sha256(bytes))),
        ("x-linked-size", bytes.len().to_string()),
    ];
    (StatusCode::FOUND, headers).into_response()
}

fn send(bytes: &Bytes, range: Option<&str>, fault: Option<Fault>) -> Response {
    let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, format!("\"{}\"", git_sha1(bytes)).parse().expect("plain"));
    if from >= bytes.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let rest = bytes.slice(from..);
    headers.insert(header::CONTENT_LENGTH, rest.len().into());
    let mut status = StatusCode::OK;
    if range.is_some() {
        status = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        headers.insert(header::CONTENT_RANGE, range.parse().expect("plain"));
    }
    let body = match fault {
        Some(Fault::OtherBytes) => Body::from(vec![b'x'; rest.len()]),
        Some(Fault::HalfABody) => {
            let half = futures::stream::iter([Ok(rest.slice(..rest.len() / 2))]);
            // The server sends what it has when it must wait for more.
            let hung_up = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("hung up"))
            });
            Body::from_stream(half.chain(hung_up))
        }
        _ => Body::from(rest),
    };
    (status, headers, body).into_response()
}

/// A pod's cache and what it knows.
struct Client {
    cache: tempfile::TempDir,
    access: Access,
    progress: Progress,
}

impl Client {
    fn of(hub: &Hub) -> Self {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let instant = Duration::from_millis(1);
        let access = Access {
            cache: cache.path().into(),
            limit: None,
            hub: hub.address.clone(),
            hub_token: None,
            variables: Variables::default(),
            retry: Retry { tries: 3, first: instant, longest: instant },
        };
        Self { cache, access, progress: Progress::new(Default::default()) }
    }

    async fn open(&self, model: &str, recorded: Option<&str>) -> Result<Snapshot, SourceError> {
        let location = Location::parse(model).expect("a good location");
        Snapshot::open(&location, None, recorded, self.access.clone(), &self.progress).await
    }

    /// Fetches a model as a pod does.
    async fn fetch(&self, model: &str, recorded: Option<&str>) -> Result<Snapshot, SourceError> {
        let mut snapshot = self.open(model, recorded).await?;
        for (name, bytes) in support::small_model() {
            if name != WEIGHTS {
                let text = snapshot.text(name, &self.progress).await?.expect("the model has it");
                assert_eq!(text.as_bytes(), bytes, "{name}");
            }
        }
        let path = snapshot.file(WEIGHTS, &self.progress).await?;
        let weights = std::fs::read(path).expect("it can be read");
        assert_eq!(snapshot.sha256(WEIGHTS, &self.progress).await?, sha256(&weights));
        snapshot.seal()?;
        Ok(snapshot)
    }

    async fn reason(&self, model: &str) -> (FailureReason, String) {
        let error = self.fetch(model, None).await.err().expect("it fails");
        (error.reason(), error.to_string())
    }

    /// Files in the cache whose names end so.
    fn cached(&self, end: &str) -> usize {
        fn walk(folder: &std::path::Path, end: &str) -> usize {
            let entries =
                std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
            entries
                .map(|path| {
                    if path.is_dir() {
                        walk(&path, end)
                    } else {
                        path.to_string_lossy().ends_with(end).into()
                    }
                })
                .sum()
        }
        walk(self.cache.path(), end)
    }
}

#[tokio::test]
async fn a_model_is_fetched_once_and_then_found_without_the_hub() {
    let hub = Hub::start().await;
    let client = Client::of(&hub);
    let first = client.fetch("hf://a/b", None).await.expect("it comes");
    assert_eq!(first.revision.as_deref(), Some(OLD));
    assert_eq!(first.network, Network::Safetensors(WEIGHTS.into()));
    assert_eq!(client.cached(".part"), 0);
    assert!(!hub.take_seen("config.json").is_empty());

    let again = client.fetch(&format!("hf://a/b@{OLD}"), None).await.expect("it is cached");
    assert_eq!(again.revision.as_deref(), Some(OLD));
    assert_eq!(hub.take_seen("").len(), 0);
}

#[tokio::test]
async fn a_model_that_the_cache_may_not_hold_is_refused_before_its_weights_are_fetched() {
    let hub = Hub::start().await;
    let mut client = Client::of(&hub);
    let needed: usize = support::small_model().iter().map(|(_, bytes)| bytes.len()).sum();
    client.access.limit = Some(needed as u64 - 1);
    let (reason, message) = client.reason("hf://a/b").await;
    assert_eq!(reason, FailureReason::CacheFull);
    let told = format!("the cache may hold {} bytes, and with {WEIGHTS} the model has {needed}", needed - 1);
    assert_eq!(message, told);
    let begun = client.cache.path().join("hf/a--b").join(OLD).join(format!("{WEIGHTS}.part"));
    assert_eq!(std::fs::metadata(begun).expect("it was claimed").len(), 0, "nothing of them came");

    client.access.limit = Some(needed as u64);
    client.fetch("hf://a/b", None).await.expect("it fits");
}

#[tokio::test]
async fn a_file_that_the_model_lacks_is_none() {
    let hub = Hub::start().await;
    let client = Client::of(&hub);
    let mut snapshot = client.open("hf://a/b", None).await.expect("it is there");
    assert_eq!(snapshot.text("tokenizer_config.json", &client.progress).await.expect("no error"), None);
}

#[tokio::test]
async fn a_recorded_revision_is_loaded_though_main_has_moved() {
    let hub = Hub::start().await;
    *hub.main.lock().expect("no panic") = NEW;
    let client = Client::of(&hub);
    let recorded = client.fetch("hf://a/b", Some(OLD)).await.expect("it comes");
    assert_eq!(recorded.revision.as_deref(), Some(OLD));
    let moved = client.fetch("hf://a/b", None).await.expect("it comes");
    assert_eq!(moved.revision.as_deref(), Some(NEW));
}

#[tokio::test]
async fn refusals_have_their_reasons() {
    for (status, code, token, reason) in [
        (401, "RepoNotFound", None, FailureReason::ModelNotFound),
        (401, "GatedRepo", None, FailureReason::CredentialsMissing),
        (403, "GatedRepo", Some("hf_other"), FailureReason::CredentialsRefused),
        (401, "", Some("hf_other"), FailureReason::CredentialsRefused),
    ] {
        let hub = Hub::start().await;
        hub.refuse(status, code);
        let mut client = Client::of(&hub);
        client.access.hub_token = token.map(ToOwned::to_owned);
        let (found, message) = client.reason("hf://a/b").await;
        assert_eq!(found, reason, "{message}");
        assert!(!message.contains("hf_other"), "{message}");
        assert_eq!(hub.take_seen("").len(), 1, "a refusal is final");
    }
    let hub = Hub::start().await;
    let client = Client::of(&hub);
    let (reason, message) = client.reason("hf://a/b@v9").await;
    assert_eq!(reason, FailureReason::ModelNotFound);
    assert!(message.contains("v9"), "{message}");
}

#[tokio::test]
async fn the_token_is_shown_to_the_hub_and_to_nobody_else() {
    let hub = Hub::start().await;
    hub.refuse(401, "GatedRepo");
    let mut client = Client::of(&hub);
    client.access.hub_token = Some(TOKEN.into());
    client.fetch("hf://a/b", None).await.expect("the token is good");
    assert!(hub.take_seen("").iter().all(|seen| seen.authorization.is_some()));
    let stored = hub.stored().take_seen(WEIGHTS);
    assert!(!stored.is_empty() && stored.iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_gone_on_from() {
    let hub = Hub::start().await;
    hub.stored().fail(WEIGHTS, Fault::HalfABody);
    let client = Client::of(&hub);
    client.fetch("hf://a/b", None).await.expect("it comes in the end");
    let ranges: Vec<_> = hub.stored().take_seen(WEIGHTS).into_iter().map(|seen| seen.range).collect();
    let half = hub.files[WEIGHTS].len() / 2;
    assert_eq!(ranges, [None, Some(format!("bytes={half}-"))]);
}

#[tokio::test]
async fn tries_are_counted_anew_after_progress() {
    let hub = Hub::start().await;
    // Each brings half of what is left: more faults than tries.
    for _ in 0..6 {
        hub.stored().fail(WEIGHTS, Fault::HalfABody);
    }
    Client::of(&hub).fetch("hf://a/b", None).await.expect("it comes in the end");
}

#[tokio::test]
async fn what_a_dead_pod_left_is_gone_on_from_or_thrown_away() {
    for (left, good) in [(&b"{\"mod"[..], true), (b"rubbish", false), (&[b'x'; 5000], false)] {
        let hub = Hub::start().await;
        let client = Client::of(&hub);
        let folder = client.cache.path().join("hf/a--b").join(OLD);
        support::write(&folder, &[("config.json.part", left.to_vec())]);
        client.fetch("hf://a/b", None).await.expect("it comes in the end");
        let ranges = hub.take_seen("config.json").into_iter().filter(|seen| seen.range.is_some()).count();
        assert_eq!(ranges, 1, "it was tried to go on");
        assert!(good || hub.files["config.json"].len() < 5000, "the last one is longer than the file");
    }
}

#[tokio::test]
async fn damaged_files_are_fetched_anew_and_refused_in_the_end() {
    for name in ["config.json", WEIGHTS] {
        let hub = Hub::start().await;
        let from = if name == WEIGHTS { hub.stored() } else { &hub };
        from.fail(name, Fault::OtherBytes);
        Client::of(&hub).fetch("hf://a/b", None).await.expect("the second one is good");

        for _ in 0..3 {
            from.fail(name, Fault::OtherBytes);
        }
        let client = Client::of(&hub);
        let (reason, message) = client.reason("hf://a/b").await;
        assert_eq!(reason, FailureReason::ModelInvalid, "{message}");
        assert!(message.contains(name), "{message}");
        assert_eq!(client.cached(&format!("/{name}")), 0, "nothing damaged is ever seen");
    }
}

#[tokio::test]
async fn a_server_that_fails_for_a_while_is_waited_for() {
    let hub = Hub::start().await;
    for path in ["revision/main", "resolve/1111111111111111111111111111111111111111/config.json"] {
        hub.fail(path, Fault::Status(503));
        hub.fail(path, Fault::Status(429));
    }
    Client::of(&hub).fetch("hf://a/b", None).await.expect("it comes in the end");

    for _ in 0..3 {
        hub.fail("revision/main", Fault::Status(500));
    }
    let (reason, message) = Client::of(&hub).reason("hf://a/b").await;
    assert_eq!(reason, FailureReason::SourceUnreachable, "{message}");
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_unreachable() {
    let hub = Hub::start().await;
    let mut client = Client::of(&hub);
    // Port 9 is that of the discard service, which nobody runs.
    client.access.hub = "http://127.0.0.1:9".into();
    assert_eq!(client.reason("hf://a/b").await.0, FailureReason::SourceUnreachable);
}

#[tokio::test]
async fn two_pods_with_one_cache_fetch_each_file_once() {
    let hub = Hub::start().await;
    let client = Client::of(&hub);
    let both = tokio::join!(client.fetch("hf://a/b", None), client.fetch("hf://a/b", None));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(hub.stored().take_seen(WEIGHTS).len(), 1);
}

#[tokio::test]
async fn a_web_server_is_a_source_too() {
    let hub = Hub::start().await;
    let stored = hub.stored();
    let client = Client::of(&hub);
    let model = format!("{}/web", stored.address);
    stored.fail("model.safetensors", Fault::Status(502));
    let mut snapshot = client.fetch(&model, None).await.expect("it comes");
    assert_eq!(snapshot.revision, None);
    assert_eq!(snapshot.text("tokenizer_config.json", &client.progress).await.expect("no error"), None);
    stored.take_seen("");
    client.fetch(&model, None).await.expect("it is cached");
    assert_eq!(stored.take_seen("").len(), 0);

    let (reason, message) = client.reason(&format!("{}/elsewhere", stored.address)).await;
    assert_eq!(reason, FailureReason::ModelUnsupported, "{message}");
}

/// Once, the rest of a file was put behind the beginning of another that had lain there before.
#[tokio::test]
async fn of_a_web_server_only_what_is_of_one_state_is_put_together() {
    let hub = Hub::start().await;
    let stored = hub.stored();
    let client = Client::of(&hub);
    let model = format!("{}/web", stored.address);
    let folder = client.cache.path().join("web").join(&sha256(format!("{model}/").as_bytes())[..32]);
    support::write(&folder, &[("config.json.part", b"{\"old\": 1, ".to_vec())]);
    // They are looked for before they are fetched.
    for _ in 0..2 {
        stored.fail(WEIGHTS, Fault::HalfABody);
    }
    client.fetch(&model, None).await.expect("it comes in the end");
    let seen = std::mem::take(&mut *stored.seen.lock().expect("no panic"));
    let ranges = |end: &str| -> Vec<_> {
        seen.iter().filter(|seen| seen.path.ends_with(end)).filter_map(|seen| seen.range.as_deref()).collect()
    };
    assert_eq!(ranges("config.json"), ["bytes=11-"], "it was looked whether it goes on");
    assert_eq!(
        ranges(WEIGHTS),
        [format!("bytes={}-", hub.files[WEIGHTS].len() / 2)],
        "the same file goes on"
    );
}

/// As buckets do that all may read and none may list.
#[tokio::test]
async fn a_web_server_may_refuse_what_it_lacks() {
    let hub = Hub::start().await;
    let stored = hub.stored();
    *stored.lacking.lock().expect("no panic") = StatusCode::FORBIDDEN;
    let client = Client::of(&hub);
    let model = format!("{}/web", stored.address);
    let mut snapshot = client.fetch(&model, None).await.expect("it comes");
    assert_eq!(snapshot.text("tokenizer_config.json", &client.progress).await.expect("no error"), None);
}

#[tokio::test]
async fn a_web_server_that_refuses_everything_wants_credentials() {
    let hub = Hub::start().await;
    hub.stored().refuse(403, "");
    let (reason, message) = Client::of(&hub).reason(&format!("{}/web", hub.stored().address)).await;
    assert_eq!(reason, FailureReason::CredentialsMissing, "{message}");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let hub = Hub::start().await;
    let mut client = Client::of(&hub);
    client.access.cache = "/proc/kembed".into();
    let (reason, message) = client.reason("hf://a/b").await;
    assert_eq!(reason, FailureReason::StartFailed, "{message}");
    assert!(message.contains("--cache-dir"), "{message}");
}
