//! A folder of a web server. It cannot be listed, so each file is asked for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use reqwest::{
    Response, StatusCode, Url,
    header::{ETAG, HeaderValue, LAST_MODIFIED},
};
use tokio::sync::OnceCell;

use super::{
    SourceError,
    check::Check,
    http::{Answer, Http, begins_at, body},
    remote::Opened,
};

/// What every model has.
const ALWAYS: &str = "config.json";

/// One folder.
pub(super) struct Web {
    http: Http,
    base: Url,
    /// Whether its files may be read at all.
    open: OnceCell<bool>,
    /// The state in which each file was when it began to come.
    begun: Mutex<BTreeMap<String, HeaderValue>>,
}

impl Web {
    pub(super) fn new(base: &str) -> Result<Self, SourceError> {
        let url = Url::parse(base).map_err(|e| SourceError::Client(format!("{base:?} is no URL: {e}")))?;
        Ok(Self { http: Http::new(None)?, base: url, open: OnceCell::new(), begun: Mutex::default() })
    }

    /// Opens a file.
    pub(super) async fn open(&self, file: &str, from: u64) -> Result<Opened, SourceError> {
        let url = self.url(file);
        let mut answer = self.http.get(&url, from).await?;
        if answer.status == StatusCode::PARTIAL_CONTENT && !self.goes_on(file, &answer.response) {
            answer = self.http.get(&url, 0).await?;
        }
        self.note(file, &answer.response);
        self.accept(file, from, url, answer).await
    }

    async fn accept(&self, file: &str, from: u64, url: Url, answer: Answer) -> Result<Opened, SourceError> {
        let what = format!("{file} at {}", self.base);
        match answer.status {
            status if status.is_success() => {
                let at = begins_at(&answer.response).unwrap_or(0);
                let total = answer.response.content_length().map(|length| at + length);
                let check = check(&answer.response);
                Ok(Opened { at, total, check, body: Some(body(url, answer.response)) })
            }
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Opened::nothing(from)),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                Err(SourceError::NotFound(format!("there is no {what}")))
            }
            // A bucket that all may read and none may list answers so for what it lacks.
            StatusCode::FORBIDDEN if self.is_open().await? => {
                tracing::warn!(
                    file,
                    "the server refuses a file of a model whose {ALWAYS} it sends: taken as not there"
                );
                Err(SourceError::NotFound(format!("the server refuses {what}")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(SourceError::CredentialsMissing(format!("the server refuses {what}")))
            }
            status => Err(SourceError::Unreachable(format!("the server answered {status} for {what}"))),
        }
    }

    /// Whether an answer goes on with what came before. A server has no revisions, so that the file may have been replaced
    /// since; if what comes is hashed, that will tell.
    fn goes_on(&self, file: &str, rest: &Response) -> bool {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        check(rest) != Check::None || state(rest).is_some_and(|now| begun.get(file) == Some(now))
    }

    fn note(&self, file: &str, answer: &Response) {
        if let Some(state) = state(answer).filter(|_| answer.status() == StatusCode::OK) {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            begun.insert(file.to_owned(), state.clone());
        }
    }

    fn url(&self, file: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(file.split('/'));
        }
        url
    }

    async fn is_open(&self) -> Result<bool, SourceError> {
        let look = async || Ok(self.http.get(&self.url(ALWAYS), 0).await?.status.is_success());
        self.open.get_or_try_init(look).await.copied()
    }

    /// Whether there is such a file. It does not begin to come by that.
    pub(super) async fn has(&self, file: &str) -> Result<bool, SourceError> {
        let url = self.url(file);
        let answer = self.http.get(&url, 0).await?;
        match self.accept(file, 0, url, answer).await {
            Ok(_) => Ok(true),
            Err(SourceError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A plain server's ETag can be of any form: only one as long as SHA-256 is taken for a hash.
fn check(answer: &Response) -> Check {
    let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    match etag.map(Check::from_etag) {
        Some(check @ Check::Sha256(_)) => check,
        _ => Check::None,
    }
}

/// What a server calls the content of a file, if it calls it something.
fn state(answer: &Response) -> Option<&HeaderValue> {
    answer.headers().get(ETAG).or_else(|| answer.headers().get(LAST_MODIFIED))
}
