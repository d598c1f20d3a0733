//! What lies below a prefix of an object store: S3 and what speaks as it does, Google's, Azure's. It is listed once, and
//! each file must then be the one that was listed, so that no model is ever made of two states of a bucket.

use std::{error::Error, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use object_store::{
    CredentialProvider, GetOptions, GetRange, ObjectStore, RetryConfig, aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, path::Path,
};
use reqwest::StatusCode;

use super::{
    SourceError,
    check::Check,
    connector::{Connector, Refused},
    http::client,
    listing::{Entry, Listing},
    location::{Bucket, Store},
    remote::Opened,
    variables::{Identity, Variables},
};

/// A bucket at one state of it.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    asked: Asked,
    listing: Listing,
}

/// What is asked, and as whom: for errors.
#[derive(Clone)]
struct Asked {
    bucket: Bucket,
    identity: Identity,
}

impl Objects {
    /// Finds out as whom to ask, and lists what is there.
    pub(super) async fn list(bucket: &Bucket, variables: &Variables) -> Result<Self, SourceError> {
        let asked = Asked { bucket: bucket.clone(), identity: variables.identity(bucket.store) };
        let prefix = Path::parse(&bucket.prefix).map_err(|e| SourceError::Client(e.to_string()))?;
        let store = open(&asked, variables).await?;
        let mut listing = Listing::default();
        let mut objects = store.list(Some(&prefix));
        while let Some(object) = objects.try_next().await.map_err(|e| asked.refused(&e))? {
            let parts = object.location.prefix_match(&prefix).into_iter().flatten();
            let name = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            listing.add(name, Entry::new(object.size, object.e_tag.as_deref()))?;
        }
        drop(objects);
        if listing.len() == 0 {
            return Err(SourceError::NotFound(format!("there is nothing below {bucket}")));
        }
        Ok(Self { store, prefix, asked, listing })
    }

    /// What names this state.
    pub(super) fn revision(&self) -> String {
        self.listing.revision()
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.listing.len()
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.listing.get(file).is_some()
    }

    /// Opens a file.
    pub(super) async fn open(&self, file: &str, from: u64) -> Result<Opened, SourceError> {
        let lost = || SourceError::NotFound(format!("there is no {file} below {}", self.asked.bucket));
        let listed = self.listing.get(file).ok_or_else(lost)?;
        if from > listed.size {
            return Ok(Opened::nothing(from));
        }
        let opened =
            |body| Opened { at: from, total: Some(listed.size), check: Check::None, body: Some(body) };
        if from == listed.size {
            // No range begins behind the last byte.
            return Ok(opened(futures::stream::empty().boxed()));
        }
        let path = Path::parse(format!("{}/{file}", self.prefix)).map_err(|_| lost())?;
        let range = (from > 0).then_some(GetRange::Offset(from));
        let options = GetOptions { range, ..GetOptions::default() };
        let got = self.store.get_opts(&path, options).await.map_err(|e| self.asked.refused(&e))?;
        if Entry::new(got.meta.size, got.meta.e_tag.as_deref()) != *listed {
            return Err(SourceError::NotFound(format!(
                "{file} below {} was replaced after it was listed",
                self.asked.bucket
            )));
        }
        let asked = self.asked.clone();
        Ok(opened(got.into_stream().map_err(move |e| asked.refused(&e)).boxed()))
    }
}

/// Makes the client of a store, and has it prove who it is, where that takes a request of its own.
async fn open(asked: &Asked, variables: &Variables) -> Result<Arc<dyn ObjectStore>, SourceError> {
    let connector = Connector(client()?);
    // Trying again is done for all sources in one way, see `Retry`.
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let Asked { bucket: Bucket { store, name, .. }, identity } = asked;
    macro_rules! built {
        ($builder:ty, $named:ident) => {{
            let mut builder = <$builder>::new();
            for (key, value) in variables.settings(*store) {
                // Tools read more than the crate knows.
                if let Ok(key) = key.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.$named(name).with_retry(once).with_http_connector(connector);
            let store = builder.build().map_err(|e| asked.unknown(&e))?;
            prove(*identity, store.credentials()).await.map_err(|e| asked.unknown(&e))?;
            Ok(Arc::new(store))
        }};
    }
    match store {
        Store::S3 => built!(AmazonS3Builder, with_bucket_name),
        Store::Google => built!(GoogleCloudStorageBuilder, with_bucket_name),
        Store::Azure => built!(MicrosoftAzureBuilder, with_container_name),
    }
}

async fn prove<C>(
    identity: Identity,
    provider: &Arc<dyn CredentialProvider<Credential = C>>,
) -> object_store::Result<()> {
    match identity {
        Identity::Nobody => Ok(()),
        Identity::Given | Identity::Machine => provider.get_credential().await.map(drop),
    }
}

impl Asked {
    /// It could not be made clear as whom to ask.
    fn unknown(&self, error: &object_store::Error) -> SourceError {
        let Self { bucket, identity } = self;
        let why = match reason(error) {
            Reason::Answer(refused) if refused.status.is_server_error() => {
                return SourceError::Unreachable(format!("failed to ask who may read {bucket}: {refused}"));
            }
            Reason::Answer(refused) => refused.to_string(),
            Reason::Network(why) if *identity == Identity::Given => {
                return SourceError::Unreachable(format!("failed to ask who may read {bucket}: {why}"));
            }
            Reason::Network(why) | Reason::Other(why) => why,
        };
        let usual = bucket.store.identities()[0];
        match identity {
            Identity::Given => {
                SourceError::CredentialsRefused(format!("the credentials for {bucket} cannot be used: {why}"))
            }
            Identity::Machine | Identity::Nobody => SourceError::CredentialsMissing(format!(
                "there are no credentials for {bucket}: give {usual}, a cloud's workload identity, or \
                 {}SKIP_SIGNATURE=true for a public one ({why})",
                bucket.store.variables()
            )),
        }
    }

    /// What it means that the store does not give what was asked for.
    fn refused(&self, error: &object_store::Error) -> SourceError {
        let Self { bucket, identity } = self;
        let refused = match reason(error) {
            Reason::Answer(refused) => refused,
            Reason::Network(why) | Reason::Other(why) => {
                return SourceError::Unreachable(format!("failed to read {bucket}: {why}"));
            }
        };
        let expired = matches!(refused.code.as_deref(), Some("ExpiredToken" | "InvalidToken"));
        match refused.status {
            StatusCode::NOT_FOUND => {
                SourceError::NotFound(format!("there is no {bucket}, or not any more: {refused}"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if *identity == Identity::Nobody => {
                SourceError::CredentialsMissing(format!("{bucket} is not public: {refused}"))
            }
            status if expired || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                SourceError::CredentialsRefused(format!(
                    "the store refused the credentials for {bucket}, or they may not list or read it: {refused}"
                ))
            }
            status if status.is_redirection() => SourceError::Client(format!(
                "{bucket} lies elsewhere; check the region ({}REGION) or the endpoint: {refused}",
                bucket.store.variables()
            )),
            _ => SourceError::Unreachable(format!("failed to read {bucket}: {refused}")),
        }
    }
}

/// What lies behind an error of the crate. Its own words hold URLs, and those hold what was signed.
enum Reason<'a> {
    Answer(&'a Refused),
    Network(String),
    Other(String),
}

fn reason(error: &object_store::Error) -> Reason<'_> {
    let mut network = false;
    let mut last: &dyn Error = error;
    loop {
        if let Some(refused) = last.downcast_ref() {
            return Reason::Answer(refused);
        }
        network |= last.is::<reqwest::Error>();
        match last.source() {
            Some(source) => last = source,
            None if network => return Reason::Network(last.to_string()),
            None => return Reason::Other(last.to_string()),
        }
    }
}
