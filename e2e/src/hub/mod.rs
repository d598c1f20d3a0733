//! A stand-in for the Hugging Face hub: lays models out by the same URLs, headers and refusals, and lets a test move
//! branches and close repositories while it runs.
//!
//! [`repo`] and [`range`] decide, [`serve`] answers as the hub does, [`control`] is what the hub does not have.

pub mod control;
pub mod file;
pub mod range;
pub mod repo;
pub mod serve;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use serde::{Deserialize, Serialize};

use self::repo::Repos;

/// Requests remembered for `GET /_control/requests`: many more than any test makes between two looks.
const REMEMBERED: usize = 4096;

/// One request as the hub saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// What was answered.
    pub status: u16,
}

/// The state of the server.
#[derive(Clone)]
pub struct Hub {
    repos: Arc<Mutex<Repos>>,
    seen: Arc<Mutex<VecDeque<Seen>>>,
}

impl Hub {
    /// Serves `root/<org>/<repo>/<files>`.
    ///
    /// # Errors
    /// If a directory or file there cannot be read.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { repos: Arc::new(Mutex::new(file::scan(root)?)), seen: Arc::default() })
    }

    /// Everything that the server answers.
    pub fn router(&self) -> Router {
        serve::routes()
            .merge(control::routes())
            .layer(middleware::from_fn_with_state(self.clone(), remember))
            .with_state(self.clone())
    }

    fn repos(&self) -> MutexGuard<'_, Repos> {
        self.repos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn remember(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let mut seen = hub.seen();
    if seen.len() == REMEMBERED {
        seen.pop_front();
    }
    seen.push_back(Seen { method, path, status: response.status().as_u16() });
    drop(seen);
    response
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::{body::Body, http::HeaderMap};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tower::ServiceExt;

    use super::*;

    /// A hub with one repository, and the directory it reads from.
    fn hub() -> (Hub, TempDir) {
        let root = tempfile::tempdir().expect("a directory");
        let repo = root.path().join("org/name");
        fs::create_dir_all(repo.join("1_Pooling")).expect("directories");
        fs::write(repo.join("1_Pooling/config.json"), "hello").expect("a file");
        fs::write(repo.join("model.safetensors"), "0123456789").expect("a file");
        (Hub::open(root.path()).expect("the files are readable"), root)
    }

    struct Answer {
        status: u16,
        headers: HeaderMap,
        body: String,
    }

    impl Answer {
        fn header(&self, name: &str) -> &str {
            self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
        }

        fn json(&self) -> Value {
            serde_json::from_str(&self.body).expect("JSON")
        }
    }

    async fn ask(hub: &Hub, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_string())).expect("a request");
        let response = hub.router().oneshot(request).await.expect("a router never fails");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn get(hub: &Hub, path: &str) -> Answer {
        ask(hub, "GET", path, &[], Value::Null).await
    }

    #[tokio::test]
    async fn a_model_is_listed_with_its_commit() {
        let (hub, _root) = hub();
        let answer = get(&hub, "/api/models/org/name/revision/main").await.json();
        assert_eq!(
            answer["siblings"],
            json!([{"rfilename": "1_Pooling/config.json"}, {"rfilename": "model.safetensors"}])
        );
        let sha = answer["sha"].as_str().expect("a commit");
        assert_eq!(sha.len(), 40);
        let by_commit = get(&hub, &format!("/api/models/org/name/revision/{sha}")).await.json();
        assert_eq!(by_commit, answer);
        assert_eq!(get(&hub, "/api/models/org/name").await.json(), answer);
    }

    #[tokio::test]
    async fn a_small_file_is_answered_at_once() {
        let (hub, _root) = hub();
        for method in ["GET", "HEAD"] {
            let path = "/org/name/resolve/main/1_Pooling/config.json";
            let answer = ask(&hub, method, path, &[], Value::Null).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("etag"), "\"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0\"");
            assert_eq!(answer.header("content-length"), "5");
            assert_eq!(answer.header("x-repo-commit").len(), 40);
            assert_eq!(answer.body, if method == "GET" { "hello" } else { "" });
        }
    }

    #[tokio::test]
    async fn a_large_file_is_elsewhere_and_can_be_resumed() {
        let (hub, _root) = hub();
        let linked = get(&hub, "/org/name/resolve/main/model.safetensors").await;
        let sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
        assert_eq!((linked.status, linked.header("x-linked-etag")), (302, &*format!("{sha256:?}")));
        assert_eq!(linked.header("x-linked-size"), "10");
        let content = linked.header("location").to_owned();
        assert_eq!(get(&hub, &content).await.body, "0123456789");
        let rest = ask(&hub, "GET", &content, &[("range", "bytes=7-")], Value::Null).await;
        assert_eq!((rest.status, &*rest.body), (206, "789"));
        assert_eq!(rest.header("content-range"), "bytes 7-9/10");
        let beyond = ask(&hub, "GET", &content, &[("range", "bytes=10-")], Value::Null).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */10"));
    }

    #[tokio::test]
    async fn refusals_have_the_hubs_codes() {
        let (hub, _root) = hub();
        let gated = json!({"from": "org/name", "access": {"gated": {"token": "hf_right"}}});
        assert_eq!(ask(&hub, "PUT", "/_control/repos/org/gated", &[], gated).await.status, 200);
        let table = [
            ("/api/models/org/none/revision/main", None, 401, "RepoNotFound"),
            ("/api/models/org/none/revision/main", Some("hf_any"), 404, "RepoNotFound"),
            ("/api/models/org/name/revision/none", None, 404, "RevisionNotFound"),
            ("/org/name/resolve/none/a", None, 404, "RevisionNotFound"),
            ("/org/name/resolve/main/none", None, 404, "EntryNotFound"),
            ("/org/gated/resolve/main/1_Pooling/config.json", None, 401, "GatedRepo"),
            ("/org/gated/resolve/main/1_Pooling/config.json", Some("hf_other"), 403, "GatedRepo"),
            ("/org/gated/resolve/main/1_Pooling/config.json", Some("nobody"), 401, ""),
            ("/org/gated/resolve/main/1_Pooling/config.json", Some("hf_right"), 200, ""),
        ];
        for (path, token, status, code) in table {
            let bearer = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
            let answer = ask(&hub, "GET", path, &headers, Value::Null).await;
            assert_eq!(
                (answer.status, answer.header("x-error-code")),
                (status, code),
                "{path} with {token:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_test_moves_a_branch_and_sees_who_asked() {
        let (hub, _root) = hub();
        let made =
            ask(&hub, "PUT", "/_control/repos/org/moving", &[], json!({"from": "org/name"})).await.json();
        let commit = json!({"files": {"1_Pooling/config.json": "moved"}});
        let moved = ask(&hub, "POST", "/_control/repos/org/moving/commits", &[], commit).await.json();
        assert_ne!(moved["sha"], made["sha"]);
        let old =
            format!("/org/moving/resolve/{}/1_Pooling/config.json", made["sha"].as_str().expect("a commit"));
        assert_eq!(get(&hub, "/org/moving/resolve/main/1_Pooling/config.json").await.body, "moved");
        assert_eq!(get(&hub, &old).await.body, "hello");
        assert_eq!(get(&hub, "/org/name/resolve/main/1_Pooling/config.json").await.body, "hello");
        let seen = get(&hub, "/_control/requests?path=/org/moving/resolve/").await.json();
        assert_eq!(seen.as_array().map(Vec::len), Some(2));
        assert_eq!(seen[1], json!({"method": "GET", "path": old, "status": 200}));
        assert_eq!(
            ask(&hub, "PUT", "/_control/repos/a/b", &[], json!({"from": "org/none"})).await.status,
            404
        );
    }
}
