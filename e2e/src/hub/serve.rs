//! What the real hub answers too.

use std::io::{self, SeekFrom};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{
    Hub,
    file::{Content, File},
    range::Range,
    repo::{MAIN, Refusal},
};

const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// Bytes read from a file at a time: each read costs a switch to another thread.
const CHUNK: usize = 256 << 10;

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/api/models/{org}/{name}", get(model))
        .route("/api/models/{org}/{name}/revision/{*revision}", get(model_revision))
        .route("/{org}/{name}/resolve/{revision}/{*file}", get(resolve))
        .route("/_content/{sha256}", get(content))
        .route("/health", get(|| async { "ok" }))
}

async fn model(hub: State<Hub>, Path((org, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    model_revision(hub, Path((org, name, MAIN.to_owned())), headers).await
}

async fn model_revision(
    State(hub): State<Hub>,
    Path((org, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let (id, repos) = (format!("{org}/{name}"), hub.repos());
    match repos.find(&id, token(&headers)).and_then(|repo| repo.revision(&revision)) {
        Ok((sha, tree)) => {
            let siblings: Vec<_> = tree.keys().map(|path| json!({"rfilename": path})).collect();
            Json(json!({"id": id, "modelId": id, "sha": sha, "siblings": siblings})).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn resolve(
    State(hub): State<Hub>,
    Path((org, name, revision, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let found = hub.repos().find(&format!("{org}/{name}"), token(&headers)).and_then(|repo| {
        let (sha, tree) = repo.revision(&revision)?;
        Ok((sha.to_owned(), tree.get(&path).cloned().ok_or(Refusal::EntryNotFound)?))
    });
    let (sha, file) = match found {
        Ok(found) => found,
        Err(refusal) => return refusal.into_response(),
    };
    let commit = [(REPO_COMMIT, sha)];
    if file.large() {
        let linked = [(LINKED_ETAG, format!("{:?}", file.oid)), (LINKED_SIZE, file.size.to_string())];
        return (StatusCode::FOUND, commit, linked, [(LOCATION, format!("/_content/{}", file.oid))])
            .into_response();
    }
    (commit, bytes(&file, &headers).await).into_response()
}

async fn content(State(hub): State<Hub>, Path(sha256): Path<String>, headers: HeaderMap) -> Response {
    let file = hub.repos().large(&sha256).cloned();
    match file {
        Some(file) => bytes(&file, &headers).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The file, or the part of it that was asked for.
async fn bytes(file: &File, headers: &HeaderMap) -> Response {
    let range = Range::parse(headers.get(RANGE).and_then(|value| value.to_str().ok()), file.size);
    let about = [(ETAG, format!("{:?}", file.oid)), (ACCEPT_RANGES, "bytes".to_owned())];
    let (status, first, length) = match range {
        Range::All => (StatusCode::OK, 0, file.size),
        Range::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Range::Unsatisfiable => {
            let size = [(CONTENT_RANGE, format!("bytes */{}", file.size))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, size).into_response();
        }
    };
    let body = match read(&file.content, first, length).await {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "failed to read a file of a model");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let mut response = (status, about, [(CONTENT_LENGTH, length.to_string())], body).into_response();
    if let Range::Part { first, last } = range {
        let value = format!("bytes {first}-{last}/{}", file.size);
        response.headers_mut().insert(CONTENT_RANGE, value.parse().expect("digits make a header"));
    }
    response
}

async fn read(content: &Content, first: u64, length: u64) -> io::Result<Body> {
    match content {
        Content::Memory(text) => {
            let part = text.bytes().skip(first as usize).take(length as usize);
            Ok(Body::from(part.collect::<Vec<_>>()))
        }
        Content::Disk(path) => {
            let mut file = tokio::fs::File::open(path).await?;
            file.seek(SeekFrom::Start(first)).await?;
            Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK)))
        }
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::BadToken => (StatusCode::UNAUTHORIZED, None, "Invalid credentials in Authorization header"),
            Self::RepoNotFound { anonymous: true } => {
                (StatusCode::UNAUTHORIZED, Some("RepoNotFound"), "Repository not found")
            }
            Self::RepoNotFound { anonymous: false } => {
                (StatusCode::NOT_FOUND, Some("RepoNotFound"), "Repository not found")
            }
            Self::RevisionNotFound => (StatusCode::NOT_FOUND, Some("RevisionNotFound"), "Invalid rev id"),
            Self::EntryNotFound => (StatusCode::NOT_FOUND, Some("EntryNotFound"), "Entry not found"),
            Self::Gated { anonymous } => (
                if anonymous { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN },
                Some("GatedRepo"),
                "Access to this model is restricted and you are not in the authorized list",
            ),
        };
        let body = Json(json!({"error": message}));
        match code {
            Some(code) => (status, [(ERROR_CODE, code), (ERROR_MESSAGE, message)], body).into_response(),
            None => (status, [(ERROR_MESSAGE, message)], body).into_response(),
        }
    }
}
