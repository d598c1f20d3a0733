//! A namespace for each test.

use std::{env, fmt::Debug, future::Future, panic::resume_unwind};

use anyhow::Context;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Namespace},
};
use kembed_crds::EmbeddingService;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::Condition,
};
use reqwest::StatusCode;
use serde::de::DeserializeOwned;

use crate::{
    client::Answer,
    command::{kubectl, kubectl_with, run},
    installation::{Installation, NAMESPACE, installation},
    report::{report, words},
    service::serves_with,
    wait::{self, await_that},
};

/// A namespace that ends with its test.
#[derive(Clone)]
pub struct TempNamespace {
    /// Its name.
    pub name: String,
    /// What kembed runs beside it.
    pub kembed: Installation,
}

/// Runs a test in a new namespace. If the test fails or panics, prints what the namespace looked like; with
/// `KEMBED_E2E_KEEP` set, such a namespace is kept.
///
/// # Errors
/// Those of the test.
pub async fn with_temp_ns<F, T>(test: T) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
    T: FnOnce(TempNamespace) -> F,
{
    let kembed = installation().await?;
    let namespaces = Api::<Namespace>::all(kembed.kube.clone());
    let name = create(&namespaces).await?;

    let result = tokio::spawn(test(TempNamespace { name: name.clone(), kembed })).await;
    let failed = !matches!(result, Ok(Ok(())));
    if failed {
        eprintln!("{}", report(&name).await);
    }
    if !(failed && env::var_os("KEMBED_E2E_KEEP").is_some())
        && let Err(error) = namespaces.delete(&name, &DeleteParams::default()).await
    {
        // What it is that failed is the test's word, and nobody else's.
        eprintln!("namespace {name} is left: {error}");
    }
    match result {
        // The last that is printed, by who runs the test.
        Ok(result) => result,
        Err(panicked) => {
            let panicked = panicked.into_panic();
            // Said when it happened, and by now far above.
            eprintln!("Error: it panicked: {}", words(&*panicked));
            resume_unwind(panicked)
        }
    }
}

/// In it only pods run that the strictest of the Pod Security Standards allows.
async fn create(namespaces: &Api<Namespace>) -> anyhow::Result<String> {
    let mut new = Namespace::default();
    new.metadata.generate_name = Some("kembed-test-".to_owned());
    let level = ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
    new.metadata.labels = Some([level].into());
    let created =
        namespaces.create(&PostParams::default(), &new).await.context("failed to create a namespace")?;
    Ok(created.name_any())
}

impl TempNamespace {
    /// The objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kembed.kube.clone(), &self.name)
    }

    /// `kubectl apply` of an object given as JSON or YAML.
    ///
    /// # Errors
    /// With what kubectl says.
    pub async fn apply(&self, object: impl ToString) -> anyhow::Result<()> {
        kubectl_with(&["--namespace", &self.name, "apply", "--filename=-"], &object.to_string()).await?;
        Ok(())
    }

    /// `kubectl` in this namespace.
    ///
    /// # Errors
    /// With what kubectl says.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        kubectl(&[&["--namespace", &self.name], args].concat()).await
    }

    /// Watches an object until `condition` holds. `what` completes the sentence "waited too long for ...".
    ///
    /// # Errors
    /// As [`wait::await_object`].
    pub async fn await_object<K>(
        &self,
        name: &str,
        what: &str,
        condition: impl Condition<K>,
    ) -> anyhow::Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + Send + DeserializeOwned + 'static,
    {
        wait::await_object(self.api::<K>(), name, what, condition).await
    }

    /// Watches an EmbeddingService until `condition` holds.
    ///
    /// # Errors
    /// As [`TempNamespace::await_object`], or if it does not exist.
    pub async fn await_service(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&EmbeddingService) -> bool,
    ) -> anyhow::Result<EmbeddingService> {
        let holds = |service: Option<&EmbeddingService>| service.is_some_and(&condition);
        self.await_object(name, what, holds)
            .await?
            .context("the EmbeddingService was deleted while it was watched")
    }

    /// Waits until an EmbeddingService asks for exactly so many pods and all of them are ready.
    ///
    /// # Errors
    /// As [`TempNamespace::await_service`].
    pub async fn await_count(&self, name: &str, count: i32) -> anyhow::Result<EmbeddingService> {
        let has = |emb: &EmbeddingService| {
            let ready = emb.status.as_ref().map(|status| status.ready_replicas);
            emb.spec.replicas == count && ready == Some(count)
        };
        self.await_service(name, &format!("{name} to have {count} pods that its load asks for"), has).await
    }

    /// Waits until every gateway knows of a service, asleep or not: at first they answer that there is none.
    ///
    /// # Errors
    /// If one does not.
    pub async fn await_known(&self, name: &str) -> anyhow::Result<()> {
        let knows = |answer: &Answer| answer.status != StatusCode::NOT_FOUND;
        self.await_gateways("each gateway to know of the service", name, "/v1/models", knows).await
    }

    /// Waits until each gateway that is ready answers a look at a service's path like this.
    ///
    /// # Errors
    /// If one does not.
    pub(crate) async fn await_gateways(
        &self,
        what: &str,
        name: &str,
        path: &str,
        is_meant: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<()> {
        let url = format!("http://{name}.{}.svc:8080{path}", self.name);
        await_that(what, async || {
            // Looked for each time: one may have ended since.
            let gateways = self.kembed.gateways().await?;
            for gateway in &gateways {
                if !is_meant(&gateway.get(&url).await?) {
                    return Ok(None);
                }
            }
            Ok((!gateways.is_empty()).then_some(()))
        })
        .await
    }

    /// Waits until an EmbeddingService is ready with exactly so many pods and every gateway knows, which takes them a
    /// moment. Not for one that goes to sleep soon: it might while they are asked.
    ///
    /// # Errors
    /// As [`TempNamespace::await_service`].
    pub async fn await_serving(&self, name: &str, pods: i32) -> anyhow::Result<EmbeddingService> {
        let what = format!("{name} to serve with {pods} pods");
        let service = self.await_service(name, &what, |service| serves_with(service, pods)).await?;
        let answers = |answer: &Answer| answer.status.is_success();
        self.await_gateways("each gateway to know the service", name, "/v1/models", answers).await?;
        Ok(service)
    }

    /// Names of the objects of a kind that belong to an EmbeddingService.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn made_for<K>(&self, service: &str) -> anyhow::Result<Vec<String>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned,
    {
        let mine = ListParams::default().labels(&format!("app.kubernetes.io/instance={service}"));
        let list =
            self.api::<K>().list(&mine).await.with_context(|| format!("failed to list {}", K::kind(&())))?;
        Ok(list.iter().map(ResourceExt::name_any).collect())
    }

    /// Waits until an event has these words, the first of them its reason; or until the controller says that it could not
    /// publish one for this reason, which it tries once: the status says the same.
    ///
    /// # Errors
    /// If neither comes about.
    pub async fn await_event(&self, words: &str) -> anyhow::Result<()> {
        let reason = words.split(':').next().unwrap_or_default();
        let mut looks = 0;
        await_that(&format!("an event to say {words:?}"), || {
            looks += 1;
            // Most come at once.
            let is_late = looks % 50 == 0;
            async move {
                let is_told = self.events().await?.iter().any(|event| event.contains(words));
                Ok((is_told || is_late && is_unpublished(reason).await).then_some(()))
            }
        })
        .await
    }

    /// What events say about this namespace, as `reason: note` lines.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn events(&self) -> anyhow::Result<Vec<String>> {
        let list = self.api::<Event>().list(&ListParams::default()).await.context("failed to list events")?;
        let line = |event: Event| {
            format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default())
        };
        Ok(list.into_iter().map(line).collect())
    }
}

/// Whether a controller, or the one that ran before in its place, failed to publish an event for this reason.
async fn is_unpublished(reason: &str) -> bool {
    let said = format!("\"reason\":\"{reason}\"");
    for which in ["--previous=false", "--previous=true"] {
        let args = ["logs", "--selector=app.kubernetes.io/component=controller", "--tail=-1", which];
        // Most have no predecessor.
        let log =
            run("kubectl", &[&["--namespace", NAMESPACE][..], &args].concat(), "").await.unwrap_or_default();
        let is_it = |line: &str| line.contains("failed to publish an event") && line.contains(&said);
        if log.lines().any(is_it) {
            return true;
        }
    }
    false
}
