//! One GET over HTTP, redirects followed by hand: what a hub says on the way would be lost otherwise, and a
//! secret must not follow to another host.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kembed_runtime::errors::chain;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE},
    redirect::Policy,
};

use super::{SourceError, remote::Body};

/// To be connected.
const CONNECT: Duration = Duration::from_secs(10);
/// From one piece of an answer to the next.
const READ: Duration = Duration::from_secs(30);
/// Redirects of one request.
const HOPS: usize = 10;

/// A client, and the secret for one host.
pub(super) struct Http {
    client: Client,
    token: Option<String>,
}

/// An answer whose body is still to come.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Of the first answer, where that was a redirect.
    pub(super) on_the_way: Option<HeaderMap>,
    pub(super) response: Response,
}

impl Http {
    /// Makes a client. Only a host of `https` URLs is ever shown the token, unless the first one was plain as well.
    pub(super) fn new(token: Option<String>) -> Result<Self, SourceError> {
        Ok(Self { client: client()?, token })
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for a file from byte `from` on.
    pub(super) async fn get(&self, url: &Url, from: u64) -> Result<Answer, SourceError> {
        let (mut next, mut on_the_way) = (url.clone(), None);
        for _ in 0..HOPS {
            let mut request = self.client.get(next.clone());
            if let Some(token) = self.token.as_ref().filter(|_| next.origin() == url.origin()) {
                request = request.bearer_auth(token);
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(|e| unreachable(url, e))?;
            match redirect(&next, &response) {
                None => return Ok(Answer { status: response.status(), on_the_way, response }),
                Some(to) => next = to,
            }
            on_the_way.get_or_insert_with(|| response.headers().clone());
        }
        Err(SourceError::Unreachable(format!("{} redirects more than {HOPS} times", host(url))))
    }
}

/// The client of all sources. It goes through the proxy that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`,
/// `ALL_PROXY`), except to hosts in `NO_PROXY`.
pub(super) fn client() -> Result<Client, SourceError> {
    // The provider of cryptography is the process's, and it is no harm if it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .user_agent(concat!("kembed/", env!("CARGO_PKG_VERSION")))
    };
    // A machine without root certificates can still fetch over plain HTTP.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    client.map_err(|e| SourceError::Client(chain(&e)))
}

fn redirect(at: &Url, response: &Response) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    at.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()
}

/// The byte with which a body begins: not the one asked for, if the server does not know ranges.
pub(super) fn begins_at(response: &Response) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// An error of the network. URLs are left out, for a redirected one can hold a secret.
pub(super) fn unreachable(url: &Url, error: reqwest::Error) -> SourceError {
    SourceError::Unreachable(format!("{}: {}", host(url), chain(&error.without_url())))
}

/// What comes after an answer's head.
pub(super) fn body(url: Url, response: Response) -> Body {
    response.bytes_stream().map_err(move |e| unreachable(&url, e)).boxed()
}

pub(super) fn host(url: &Url) -> &str {
    url.host_str().unwrap_or("the host")
}
