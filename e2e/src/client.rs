//! HTTP from the test itself: any host name leads to one address, so that `http://<name>.<namespace>.svc/` can be asked
//! from outside the cluster's DNS. Requests by real names come from [`pods`](crate::pod).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};
use reqwest::{
    Method, RequestBuilder, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, HeaderMap},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::wait::await_that;

/// For an answer, with room for a pod that starts, and for a model that shares two cores with everything else.
const TIMEOUT: Duration = Duration::from_secs(240);

/// A client all of whose requests go to one address.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("{} with no JSON: {:?}", self.status, self.body))
    }

    /// The answer, if it is a success.
    ///
    /// # Errors
    /// With status and body if it is not.
    pub fn success(self) -> anyhow::Result<Self> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.body);
        Ok(self)
    }

    /// A header, or nothing where it is absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

struct Always(IpAddr);

impl Resolve for Always {
    fn resolve(&self, _name: Name) -> Resolving {
        let address = SocketAddr::new(self.0, 0); // the port is that of the URL
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<f64>,
}

impl Client {
    /// A client whose requests go to this address, whatever host their URL names.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn to(address: IpAddr) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder().dns_resolver(Always(address)).timeout(TIMEOUT).no_proxy();
        Ok(Self(builder.build().context("failed to make an HTTP client")?))
    }

    /// Sends a request, with a body if there is one.
    ///
    /// # Errors
    /// If no whole answer comes back; a refusal is an answer.
    pub async fn send(&self, method: Method, url: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let mut request = self.0.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        answer(request).await
    }

    /// Sends a request with a bearer token.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_as(&self, token: &str, method: Method, url: &str) -> anyhow::Result<Answer> {
        answer(self.0.request(method, url).bearer_auth(token)).await
    }

    /// `POST` of JSON with a header.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post_with(&self, header: (&str, &str), url: &str, body: Value) -> anyhow::Result<Answer> {
        let request = self.0.post(url).header(header.0, header.1).header(CONTENT_TYPE, "application/json");
        answer(request.body(body.to_string())).await
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, url, None).await
    }

    /// `GET` of what a ready pod tells, again while there is none: such requests do not wait, and a pod is unready for a moment
    /// where the machine is so busy that its probe took too long.
    ///
    /// # Errors
    /// As [`Client::send`], or if the answer is no success.
    pub async fn get_of_pod(&self, url: &str) -> anyhow::Result<Answer> {
        let look = async || {
            let answer = self.get(url).await?;
            Ok((answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer))
        };
        await_that(&format!("a pod to answer {url}"), look).await?.success()
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(&self, url: &str, body: Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, url, Some(body)).await
    }

    /// `POST /v1/embeddings` below `base`, answering a vector an input.
    ///
    /// # Errors
    /// If the answer is not one vector an input.
    pub async fn embed(&self, base: &str, model: &str, inputs: &[&str]) -> anyhow::Result<Vec<Vec<f64>>> {
        let request = json!({"model": model, "input": inputs});
        vectors(&self.post(&format!("{base}/v1/embeddings"), request).await?.success()?.body)
    }
}

async fn answer(request: RequestBuilder) -> anyhow::Result<Answer> {
    let (client, request) = request.build_split();
    let request = request.context("a request that cannot be made")?;
    let asked = format!("{} {}", request.method(), request.url());
    let what = || format!("failed to ask {asked}");
    let response = client.execute(request).await.with_context(what)?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await.with_context(what)? })
}

/// The vectors in the body of an answer to `/v1/embeddings`.
///
/// # Errors
/// If it is none.
pub fn vectors(body: &str) -> anyhow::Result<Vec<Vec<f64>>> {
    let answer: Embeddings =
        serde_json::from_str(body).with_context(|| format!("not an answer with embeddings: {body:?}"))?;
    Ok(answer.data.into_iter().map(|item| item.embedding).collect())
}
