//! A folder of a web server. It cannot be listed, so each file is asked for.

use reqwest::{StatusCode, Url, header::ETAG};

use super::{
    SourceError,
    check::Check,
    http::{Http, begins_at, body},
    remote::Opened,
};

/// One folder.
pub(super) struct Web {
    http: Http,
    base: Url,
}

impl Web {
    pub(super) fn new(base: &str) -> Result<Self, SourceError> {
        let url = Url::parse(base).map_err(|e| SourceError::Client(format!("{base:?} is no URL: {e}")))?;
        Ok(Self { http: Http::new(None)?, base: url })
    }

    /// Opens a file.
    pub(super) async fn open(&self, file: &str, from: u64) -> Result<Opened, SourceError> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(file.split('/'));
        }
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
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(SourceError::CredentialsMissing(format!("the server refuses {what}")))
            }
            status => Err(SourceError::Unreachable(format!("the server answered {status} for {what}"))),
        }
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
