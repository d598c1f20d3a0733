//! A server that lists and sends files as S3, Google's and Azure's stores do, and gives AWS tokens. It checks no
//! signature: that is what a real server is for.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub query: String,
    pub authorization: String,
}

pub struct StandIn {
    pub address: String,
    files: Vec<(&'static str, Vec<u8>)>,
    seen: Mutex<Vec<Seen>>,
}

const DATE: &str = "Sat, 01 Nov 2025 00:00:00 GMT";

impl StandIn {
    /// Has these files in the folder `m` of each bucket.
    pub async fn start(files: Vec<(&'static str, Vec<u8>)>) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let server = Arc::new(Self { address, files, seen: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        server
    }

    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

async fn answer(State(server): State<Arc<StandIn>>, request: Request) -> Response {
    // For Google's store, a name is one part of a path.
    let escaped = [("%2F", "/"), ("%2E", "."), ("%5F", "_")];
    let path =
        escaped.iter().fold(request.uri().path().to_owned(), |path, (from, to)| path.replace(from, to));
    let query = request.uri().query().unwrap_or_default();
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let authorization = text(header::AUTHORIZATION).to_owned();
    let range = text(header::RANGE).strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let from = range.and_then(|from| from.parse().ok());
    let seen = Seen { path: path.clone(), query: query.into(), authorization };
    server.seen.lock().expect("no panic").push(seen);
    match path.trim_matches('/').split_once("/m/") {
        Some((_, name)) => send(&server, name, from),
        None if query.contains("AssumeRoleWithWebIdentity") => TOKEN.into_response(),
        None if query.contains("comp=list") => azure(&server).into_response(),
        None if query.contains("list-type=2") => s3(&server).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

const TOKEN: &str = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
    <SessionToken>a-token</SessionToken><SecretAccessKey>a-secret</SecretAccessKey>\
    <Expiration>2099-01-01T00:00:00Z</Expiration><AccessKeyId>key-of-the-role</AccessKeyId></Credentials>\
    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

fn s3(server: &StandIn) -> String {
    let mut text = "<ListBucketResult>".to_owned();
    for (name, bytes) in &server.files {
        write!(
            text,
            "<Contents><Key>m/{name}</Key><LastModified>2025-11-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;{name}&quot;</ETag><Size>{}</Size></Contents>",
            bytes.len()
        )
        .expect("a string can be written to");
    }
    text + "</ListBucketResult>"
}

fn azure(server: &StandIn) -> String {
    let mut text = "<EnumerationResults><Blobs>".to_owned();
    for (name, bytes) in &server.files {
        write!(
            text,
            "<Blob><Name>m/{name}</Name><Properties><Last-Modified>{DATE}</Last-Modified><Etag>{name}</Etag>\
             <Content-Length>{}</Content-Length><Content-Type>text/plain</Content-Type></Properties></Blob>",
            bytes.len()
        )
        .expect("a string can be written to");
    }
    text + "</Blobs><NextMarker /></EnumerationResults>"
}

fn send(server: &StandIn, name: &str, from: Option<usize>) -> Response {
    let Some((_, bytes)) = server.files.iter().find(|(known, _)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut headers = HeaderMap::new();
    let mut set = |name, value: String| headers.insert(name, value.parse().expect("plain"));
    set(header::ETAG, format!("\"{name}\""));
    set(header::LAST_MODIFIED, DATE.into());
    let Some(from) = from else { return (headers, bytes.clone()).into_response() };
    set(header::CONTENT_RANGE, format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
    (StatusCode::PARTIAL_CONTENT, headers, bytes[from..].to_vec()).into_response()
}
