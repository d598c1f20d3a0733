//! How the crate that speaks with object stores comes to the network: by the same client as every other source. A
//! refusal leaves here as an error of one kind, with the two words of it that say why; the rest of an answer can hold
//! what was signed, which is nobody's business.

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};
use reqwest::{Client, StatusCode};

/// Bytes of a refusal that are looked at.
const REFUSAL: usize = 64 << 10;

/// Gives the crate our client.
#[derive(Debug)]
pub(super) struct Connector(pub(super) Client);

impl HttpConnector for Connector {
    /// The options are those of another client: time limits and proxies are ours.
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Client);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.call(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), REFUSAL).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let code = code(&String::from_utf8_lossy(&body)).map(ToOwned::to_owned);
        Err(HttpError::new(HttpErrorKind::Unknown, Refused { status, code }))
    }
}

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
#[error("it answered {status}{}", code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// The store's own word for it, for example `NoSuchBucket`.
    pub(super) code: Option<String>,
}

/// What S3, Google's and Azure's stores and AWS's token service call the fault.
fn code(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_a_fault_is_found() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>secret</Message></Error>";
        assert_eq!(code(body), Some("NoSuchBucket"));
        for body in ["", "<Code>", "<Code>a b</Code>", "<html>", "</Code><Code>"] {
            assert_eq!(code(body), None, "{body}");
        }
        let refused = Refused { status: StatusCode::NOT_FOUND, code: Some("NoSuchBucket".into()) };
        assert_eq!(refused.to_string(), "it answered 404 Not Found (NoSuchBucket)");
    }
}
