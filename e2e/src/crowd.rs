//! Many services at once, in a few namespaces, with pods on fake nodes alone.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kembed_crds::EmbeddingService;
use kube::{
    Api, Client as Kube,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    namespace::TempNamespace,
    service::{minilm, with},
};

/// Services that are made at the same time.
const AT_ONCE: usize = 32;

/// How long Kubernetes may take to delete them all.
const GOING: Duration = Duration::from_secs(1800);

/// So many services.
#[derive(Debug)]
pub struct Crowd {
    namespaces: Vec<String>,
    services: usize,
}

impl Crowd {
    /// Makes the namespaces, named after this one.
    ///
    /// # Errors
    /// If one cannot be made.
    pub async fn new(ns: &TempNamespace, namespaces: usize, services: usize) -> anyhow::Result<Self> {
        let namespaces: Vec<String> =
            (0..namespaces.max(1)).map(|number| format!("{}-{number}", ns.name)).collect();
        let api = Api::<Namespace>::all(ns.kembed.kube.clone());
        for name in &namespaces {
            let new = serde_json::from_value(json!({"metadata": {"name": name}}))?;
            api.create(&PostParams::default(), &new).await.context("failed to make a namespace")?;
        }
        Ok(Self { namespaces, services })
    }

    /// Makes the services, all asleep, as those are that nobody has asked for long.
    ///
    /// # Errors
    /// If one cannot be made.
    pub async fn make(&self, kube: &Kube) -> anyhow::Result<()> {
        let create = async |number: usize| {
            let api = Api::<EmbeddingService>::namespaced(kube.clone(), self.namespace(number));
            let service = serde_json::from_value(service(number))?;
            api.create(&PostParams::default(), &service).await.context("failed to make a service")?;
            anyhow::Ok(())
        };
        stream::iter((0..self.services).map(create))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(())
    }

    /// Where the service of that number is asked.
    pub fn base(&self, number: usize) -> String {
        format!("http://{}.{}.svc", name(number), self.namespace(number))
    }

    /// Deletes all, and waits until they are gone.
    ///
    /// # Errors
    /// If they do not go.
    pub async fn delete(&self, kube: &Kube) -> anyhow::Result<()> {
        let api = Api::<Namespace>::all(kube.clone());
        for name in &self.namespaces {
            api.delete(name, &DeleteParams::default()).await.context("failed to delete a namespace")?;
        }
        let began = Instant::now();
        for name in &self.namespaces {
            while api.get_opt(name).await?.is_some() {
                ensure!(began.elapsed() < GOING, "namespace {name} does not go");
                sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }

    fn namespace(&self, number: usize) -> &str {
        &self.namespaces[number % self.namespaces.len()]
    }
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

fn service(number: usize) -> Value {
    let spec = json!({
        "replicas": 0,
        "scaling": {"minReplicas": 0, "maxReplicas": 2},
        "podTemplate": {
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        },
    });
    with(minilm(&name(number)), spec)
}
