//! What tests do to the hub while it runs, under `/_control/`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};

use super::{
    Hub, Seen,
    file::File,
    repo::{Access, MAIN, Repo},
};

/// `PUT /_control/repos/{org}/{name}`: makes a repository with the files of another one's `main`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRepo {
    /// `org/name` of the other.
    pub from: String,
    /// Who may read it.
    #[serde(default)]
    pub access: Access,
}

/// `POST /_control/repos/{org}/{name}/commits`: writes files and moves a branch to them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCommit {
    /// What moves.
    #[serde(default = "main")]
    pub branch: String,
    /// Text by path; the other files stay as they were.
    pub files: BTreeMap<String, String>,
}

fn main() -> String {
    MAIN.to_owned()
}

/// The answer to [`NewRepo`] and [`NewCommit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The commit that the branch means now.
    pub sha: String,
}

/// Query of `GET /_control/requests`, which answers a list of [`Seen`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Requests whose path holds this.
    #[serde(default)]
    pub path: String,
}

pub(super) fn routes() -> Router<Hub> {
    Router::new()
        .route("/_control/repos/{org}/{name}", put(create))
        .route("/_control/repos/{org}/{name}/commits", post(commit))
        .route("/_control/requests", get(requests))
}

type Id = Path<(String, String)>;

async fn create(
    State(hub): State<Hub>,
    Path((org, name)): Id,
    Json(new): Json<NewRepo>,
) -> Result<Json<Moved>, StatusCode> {
    let id = format!("{org}/{name}");
    let mut repos = hub.repos();
    let from = repos.get_mut(&new.from).ok_or(StatusCode::NOT_FOUND)?;
    let (_, tree) = from.revision(MAIN).expect("every repository is made with a main");
    let repo = Repo::new(&id, new.access, tree.clone());
    let sha = repo.revision(MAIN).expect("every repository is made with a main").0.to_owned();
    repos.insert(id, repo);
    Ok(Json(Moved { sha }))
}

async fn commit(
    State(hub): State<Hub>,
    Path((org, name)): Id,
    Json(new): Json<NewCommit>,
) -> Result<Json<Moved>, StatusCode> {
    let mut repos = hub.repos();
    let repo = repos.get_mut(&format!("{org}/{name}")).ok_or(StatusCode::NOT_FOUND)?;
    let files = new.files.into_iter().map(|(path, text)| (path.clone(), File::memory(&path, text)));
    Ok(Json(Moved { sha: repo.commit(&new.branch, files.collect()) }))
}

async fn requests(State(hub): State<Hub>, Query(about): Query<About>) -> Json<Vec<Seen>> {
    Json(hub.seen().iter().filter(|seen| seen.path.contains(&about.path)).cloned().collect())
}
