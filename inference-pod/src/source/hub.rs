//! A model hub that speaks Hugging Face's protocol.

use std::collections::BTreeSet;

use reqwest::{
    StatusCode, Url,
    header::{ETAG, HeaderMap},
};
use serde::Deserialize;

use super::{
    SourceError,
    check::Check,
    http::{Answer, Http, begins_at, body, unreachable},
    remote::Opened,
};

/// Bytes of the answer about a revision: 64 MB list some hundred thousand files.
const LISTING: usize = 64 << 20;

/// One repository.
pub(super) struct Hub {
    http: Http,
    endpoint: Url,
    repository: String,
}

/// A revision as the hub describes it.
#[derive(Deserialize)]
struct Described {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    pub(super) fn new(endpoint: &str, repository: &str, token: Option<String>) -> Result<Self, SourceError> {
        let endpoint = Url::parse(endpoint)
            .map_err(|e| SourceError::Client(format!("HF_ENDPOINT {endpoint:?} is no URL: {e}")))?;
        Ok(Self { http: Http::new(token)?, endpoint, repository: repository.to_owned() })
    }

    /// The commit that a revision is now, and the files that it has.
    pub(super) async fn resolve(&self, revision: &str) -> Result<(String, BTreeSet<String>), SourceError> {
        let mut path = vec!["api", "models"];
        path.extend(self.repository.split('/'));
        path.extend(["revision", revision]);
        let url = self.url(&path)?;
        let answer = self.http.get(&url, 0).await?;
        let what = format!("{}@{revision}", self.repository);
        let mut response = self.accept(answer, &what)?.response;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| unreachable(&url, e))? {
            body.extend_from_slice(&piece);
            if body.len() > LISTING {
                return Err(SourceError::Unreachable(format!("the hub's answer about {what} has no end")));
            }
        }
        let described: Described = serde_json::from_slice(&body).map_err(|e| {
            SourceError::Unreachable(format!("the hub's answer about {what} is damaged: {e}"))
        })?;
        Ok((described.sha, described.siblings.into_iter().map(|sibling| sibling.rfilename).collect()))
    }

    /// Opens a file of a commit.
    pub(super) async fn open(&self, commit: &str, file: &str, from: u64) -> Result<Opened, SourceError> {
        let mut path: Vec<_> = self.repository.split('/').collect();
        path.extend(["resolve", commit]);
        path.extend(file.split('/'));
        let url = self.url(&path)?;
        let answer = self.http.get(&url, from).await?;
        if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Opened::nothing(from));
        }
        let Answer { on_the_way, response, .. } =
            self.accept(answer, &format!("{}/{file}", self.repository))?;
        let at = begins_at(&response).unwrap_or(0);
        let own = on_the_way.as_ref().unwrap_or(response.headers());
        let linked = text(own, "x-linked-size").and_then(|size| size.parse().ok());
        let total = linked.or_else(|| Some(at + response.content_length()?));
        let check = match text(own, "x-linked-etag") {
            Some(etag) => Check::from_etag(etag),
            None => text(response.headers(), ETAG.as_str()).map(Check::from_etag).unwrap_or_default(),
        };
        Ok(Opened { at, total, check, body: Some(body(url, response)) })
    }

    fn url(&self, path: &[&str]) -> Result<Url, SourceError> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| SourceError::Client("HF_ENDPOINT is no address of a server".into()))?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    fn accept(&self, answer: Answer, what: &str) -> Result<Answer, SourceError> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let code = text(answer.response.headers(), "x-error-code");
        Err(refusal(answer.status.as_u16(), code, self.http.has_token(), what))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What a hub's refusal means. To somebody without a token it hides whether a repository does not exist or is
/// private.
fn refusal(status: u16, code: Option<&str>, has_token: bool, what: &str) -> SourceError {
    match (status, code) {
        (_, Some("RepoNotFound")) if has_token => {
            SourceError::NotFound(format!("there is no model {what} on the hub, or the token may not see it"))
        }
        (_, Some("RepoNotFound")) => SourceError::NotFound(format!(
            "there is no model {what} on the hub, or it is private and needs a token"
        )),
        (_, Some("RevisionNotFound")) => {
            SourceError::NotFound(format!("there is no revision {what} on the hub"))
        }
        (_, Some("EntryNotFound")) | (404, _) => {
            SourceError::NotFound(format!("there is no {what} on the hub"))
        }
        (401 | 403, Some("GatedRepo")) if has_token => SourceError::CredentialsRefused(format!(
            "the model {what} is gated, and the token's owner was not let in: ask for access on its page"
        )),
        (401 | 403, Some("GatedRepo")) => SourceError::CredentialsMissing(format!(
            "the model {what} is gated: give a token of somebody who was let in"
        )),
        (401 | 403, _) if has_token => {
            SourceError::CredentialsRefused(format!("the hub refused the token for {what}"))
        }
        (401 | 403, _) => SourceError::CredentialsMissing(format!("the hub wants a token for {what}")),
        _ => SourceError::Unreachable(format!("the hub answered {status} for {what}")),
    }
}

#[cfg(test)]
mod tests {
    use kembed_queue::wire::FailureReason::{self, *};

    use super::*;

    #[test]
    fn each_refusal_has_its_reason() {
        let cases: [(u16, Option<&str>, bool, FailureReason); 10] = [
            (401, Some("RepoNotFound"), false, ModelNotFound),
            (404, Some("RepoNotFound"), true, ModelNotFound),
            (404, Some("RevisionNotFound"), false, ModelNotFound),
            (404, None, false, ModelNotFound),
            (401, Some("GatedRepo"), false, CredentialsMissing),
            (403, Some("GatedRepo"), true, CredentialsRefused),
            (401, None, false, CredentialsMissing),
            (401, None, true, CredentialsRefused),
            (429, None, false, SourceUnreachable),
            (503, None, true, SourceUnreachable),
        ];
        for (status, code, has_token, reason) in cases {
            let error = refusal(status, code, has_token, "a/b");
            assert_eq!(error.reason(), reason, "{status} {code:?} {has_token}");
            assert!(error.to_string().contains("a/b"), "{error}");
        }
    }
}
