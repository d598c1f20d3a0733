//! A folder of a web server. It cannot be listed, so each file is asked for.

use reqwest::{StatusCode, Url, header::ETAG};
use tokio::sync::OnceCell;

use super::{
    SourceError,
    check::Check,
    http::{Http, begins_at, body},
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
}

impl Web {
    pub(super) fn new(base: &str) -> Result<Self, SourceError> {
        let url = Url::parse(base).map_err(|e| SourceError::Client(format!("{base:?} is no URL: {e}")))?;
        Ok(Self { http: Http::new(None)?, base: url, open: OnceCell::new() })
    }

    /// Opens a file.
    pub(super) async fn open(&self, file: &str, from: u64) -> Result<Opened, SourceError> {
        let url = self.url(file);
        let answer = self.http.get(&url, from).await?;
        let what = format!("{file} at {}", self.base);
        match answer.status {
            status if status.is_success() => {
                let at = begins_at(&answer.response).unwrap_or(0);
                let total = answer.response.content_length().map(|length| at + length);
                let etag = answer.response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
                // A plain server's ETag can be of any form: only one as long as SHA-256 is taken for a hash.
                let check = match etag.map(Check::from_etag) {
                    Some(check @ Check::Sha256(_)) => check,
                    _ => Check::None,
                };
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

    /// Whether there is such a file.
    pub(super) async fn has(&self, file: &str) -> Result<bool, SourceError> {
        match self.open(file, 0).await {
            Ok(_) => Ok(true),
            Err(SourceError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
