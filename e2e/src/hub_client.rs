//! The control of the [test hub](crate::hub) from a test.

use std::collections::BTreeMap;

use anyhow::Context;
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    client::Client,
    hub::{
        Seen,
        control::{Moved, NewCommit, NewRepo},
        repo::{Access, MAIN},
    },
    service::MODEL,
};

/// The hub that pods of the test cluster load models from.
#[derive(Clone, Debug)]
pub struct HubClient(pub(crate) Client);

impl HubClient {
    /// Makes a repository with the files of the test [`MODEL`]; returns its first commit.
    ///
    /// # Errors
    /// If the hub does not.
    pub async fn create(&self, repo: &str, access: Access) -> anyhow::Result<String> {
        let new = NewRepo { from: MODEL.to_owned(), access };
        let moved: Moved = self.ask(Method::PUT, &format!("repos/{repo}"), Some(new)).await?;
        Ok(moved.sha)
    }

    /// Changes one file of a repository's main branch; returns the new commit.
    ///
    /// # Errors
    /// If the hub does not.
    pub async fn commit(&self, repo: &str, path: &str, text: &str) -> anyhow::Result<String> {
        let files = BTreeMap::from([(path.to_owned(), text.to_owned())]);
        let new = NewCommit { branch: MAIN.to_owned(), files };
        let moved: Moved = self.ask(Method::POST, &format!("repos/{repo}/commits"), Some(new)).await?;
        Ok(moved.sha)
    }

    /// The requests so far whose path holds `path`.
    ///
    /// # Errors
    /// If the hub does not tell.
    pub async fn requests(&self, path: &str) -> anyhow::Result<Vec<Seen>> {
        self.ask(Method::GET, &format!("requests?path={path}"), None::<()>).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<impl Serialize>,
    ) -> anyhow::Result<T> {
        let body = body.map(serde_json::to_value).transpose()?;
        let answer = self.0.send(method, &format!("http://hub/_control/{path}"), body).await?.success()?;
        serde_json::from_value(answer.json()?)
            .with_context(|| format!("the hub's answer to {path} is another"))
    }
}
