//! Makes the cluster's objects as built, by server-side apply, and leaves alone objects of others and what is as built
//! already.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::{
    NamespaceResourceScope, api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kembed_crds::conditions::Reason;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::Status,
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    build::Objects,
    deployed::Deployed,
    fields,
    memory::{Key, Memory, Need, Print},
    pods::Hindrance,
};

/// Name under which the controller owns fields.
pub const FIELD_MANAGER: &str = "kembed-controller";

/// Why an object is not as built.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of the name is there and belongs to somebody else.
    #[error("{kind} {name} exists and does not belong to this EmbeddingService")]
    NotOurs {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server refused it.
    #[error("the API server refused {kind} {name}: {message}")]
    Rejected {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        message: String,
    },
    /// The namespace is being deleted, and everything in it.
    #[error("the namespace of {kind} {name} is being deleted")]
    NamespaceTerminating {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server could not be asked, or somebody else was faster: worth another try.
    #[error("failed to apply {kind} {name}")]
    Failed {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl ApplyError {
    /// What a user is told, if another try alone cannot help.
    pub fn hindrance(&self) -> Option<Hindrance> {
        let reason = match self {
            Self::NotOurs { .. } => Reason::NameConflict,
            Self::Rejected { .. } => Reason::PodRejected,
            Self::NamespaceTerminating { .. } | Self::Failed { .. } => return None,
        };
        Some(Hindrance::new(reason, self.to_string()))
    }
}

/// Applies the objects of one service.
pub struct Applier<'a> {
    /// Behind the fence.
    pub client: &'a Client,
    /// The service's metadata.
    pub service: &'a ObjectMeta,
    /// What was applied last.
    pub memory: &'a Mutex<Memory>,
    /// The Deployments of all services, as they were seen last, without their specs.
    pub deployments: &'a Store<Deployed>,
}

impl Applier<'_> {
    /// Applies those objects that are not known to be as built. The address comes first: it costs nothing, and the rest
    /// takes time.
    ///
    /// # Errors
    /// The first object that could not be applied; those before it are.
    pub async fn apply(&self, objects: &Objects) -> Result<Arc<Deployed>, ApplyError> {
        self.keep(&objects.service).await?;
        self.keep(&objects.pod_disruption_budget).await?;
        if let Some(policy) = &objects.network_policy {
            self.keep(policy).await?;
        }
        if let Some(space) = &objects.space {
            self.keep(space).await?;
        }
        self.deployment(&objects.deployment).await
    }

    /// An object that is watched.
    async fn deployment(&self, built: &Deployment) -> Result<Arc<Deployed>, ApplyError> {
        let (key, print) = (self.key::<Deployment>(), Print::of(built, self.service));
        let name = built.name_any();
        let seen =
            self.deployments.get(&ObjectRef::new(&name).within(&built.namespace().unwrap_or_default()));
        let stands = |seen: &Arc<Deployed>| self.memory().stands(&key, print, built.meta(), seen.meta());
        if let Some(seen) = seen.filter(stands) {
            return Ok(seen);
        }
        let found = self.find::<Deployment>(&name).await?;
        self.put(built, found, (key, print)).await.map(|deployment| Arc::new(deployment.into()))
    }

    /// An object that is not watched.
    async fn keep<K: Kept>(&self, built: &K) -> Result<(), ApplyError> {
        let (key, print) = (self.key::<K>(), Print::of(built, self.service));
        let need = self.memory().need(&key, print, Instant::now());
        if need == Need::Nothing {
            return Ok(());
        }
        let found = self.find::<K>(&built.name_any()).await?;
        let unchanged = |found: &ObjectMeta| self.memory().is_unchanged(&key, found, Instant::now());
        if need == Need::Look && found.as_ref().is_some_and(unchanged) {
            return Ok(());
        }
        self.put(built, found, (key, print)).await.map(drop)
    }

    /// What is there of that name.
    async fn find<K: Kept>(&self, name: &str) -> Result<Option<ObjectMeta>, ApplyError> {
        let found = self.api::<K>().get_metadata_opt(name).await;
        Ok(found.map_err(|error| classify::<K>(name, error))?.map(|found| found.metadata))
    }

    /// Creates it if nothing was found of its name, and applies it if what was found is ours.
    async fn put<K: Kept>(
        &self,
        built: &K,
        found: Option<ObjectMeta>,
        (key, print): (Key, Print),
    ) -> Result<K, ApplyError> {
        let name = built.name_any();
        let api = self.api::<K>();
        let put = match found {
            None => {
                // Created, not applied: if somebody makes one in this moment, this is refused rather than merged into it.
                let params =
                    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
                api.create(&params, built).await
            }
            Some(found) if self.owns(&found) => {
                self.adopt::<K>(&name, &found).await?;
                // With its uid, so that an object of somebody else that has taken its place is not touched either.
                let mut ours = built.clone();
                ours.meta_mut().uid = found.uid;
                let params = PatchParams::apply(FIELD_MANAGER).force();
                api.patch(&name, &params, &Patch::Apply(&ours)).await
            }
            Some(_) => return Err(ApplyError::NotOurs { kind: K::kind(&()).into_owned(), name }),
        };
        let put = put.map_err(|error| classify::<K>(&name, error))?;
        self.memory().applied(key, print, put.meta(), Instant::now());
        Ok(put)
    }

    /// Lets the next apply take away what was created and is wanted no longer.
    async fn adopt<K: Kept>(&self, name: &str, found: &ObjectMeta) -> Result<(), ApplyError> {
        let Some(owners) = fields::adopted(found, FIELD_MANAGER) else { return Ok(()) };
        // With the version that was read: who has written meanwhile may own fields too.
        let version = &found.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version, "managedFields": owners}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patched = self.api::<K>().patch_metadata(name, &params, &Patch::Merge(&patch)).await;
        patched.map(drop).map_err(|error| classify::<K>(name, error))
    }

    fn owns(&self, found: &ObjectMeta) -> bool {
        let mut owners = found.owner_references.iter().flatten();
        owners.any(|owner| Some(&owner.uid) == self.service.uid.as_ref() && owner.controller == Some(true))
    }

    fn api<K: Kept>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.service.namespace.as_deref().unwrap_or_default())
    }

    fn key<K: Kept>(&self) -> Key {
        (self.service.uid.clone().unwrap_or_default(), std::any::type_name::<K>())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kind of object that is made for services.
trait Kept:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Kept for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

fn classify<K: Resource<DynamicType = ()>>(name: &str, error: kube::Error) -> ApplyError {
    let (kind, name) = (K::kind(&()).into_owned(), name.to_owned());
    match error {
        kube::Error::Api(status) if namespace_terminates(&status) => {
            ApplyError::NamespaceTerminating { kind, name }
        }
        // Bad request, forbidden (by a quota or an admission policy) or invalid: asking again will not help.
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            ApplyError::Rejected { kind, name, message: status.message }
        }
        error => ApplyError::Failed { kind, name, source: Box::new(error) },
    }
}

fn namespace_terminates(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kembed_crds::EmbeddingService;
    use kube::{
        client::Body,
        runtime::{
            reflector::{self, store::Writer},
            watcher,
        },
    };
    use serde_json::Value;
    use tower::service_fn;

    use super::*;
    use crate::controller::{
        build,
        config::tests::config,
        validate::{tests::object, validate},
    };

    fn refusal(status: serde_json::Value) -> ApplyError {
        let status: Status = serde_json::from_value(status).expect("a status");
        classify::<ConfigMap>("minilm-space", kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_quota_is_told_from_a_namespace_that_ends() {
        let quota = refusal(serde_json::json!({"code": 403, "message": "exceeded quota"}));
        let hindrance = quota.hindrance().expect("a user has to act");
        assert_eq!(hindrance.reason, Reason::PodRejected);
        assert_eq!(hindrance.message, "the API server refused ConfigMap minilm-space: exceeded quota");
        let ending = refusal(serde_json::json!({"code": 403, "message": "is being terminated",
            "details": {"causes": [{"reason": "NamespaceTerminating"}]}}));
        assert!(matches!(ending, ApplyError::NamespaceTerminating { .. }));
        assert_eq!(ending.hindrance(), None);
    }

    #[test]
    fn a_conflict_is_worth_another_try() {
        assert!(matches!(refusal(serde_json::json!({"code": 409})), ApplyError::Failed { .. }));
    }

    /// An API server.
    #[derive(Clone, Default)]
    struct Api(Arc<Mutex<Stored>>);

    #[derive(Default)]
    struct Stored {
        /// By path.
        objects: BTreeMap<String, Value>,
        /// Of the requests that came.
        asked: Vec<Method>,
    }

    impl Api {
        fn stored(&self) -> MutexGuard<'_, Stored> {
            self.0.lock().expect("no panic")
        }

        async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut stored = self.stored();
            stored.asked.push(head.method.clone());
            let mut path = head.uri.path().to_owned();
            let (status, answer) = if head.method == Method::GET {
                let found = stored.objects.get(&path).cloned();
                found.map_or(
                    (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})),
                    |found| (200, found),
                )
            } else if head.headers["content-type"] == "application/merge-patch+json" {
                let patch: Value = serde_json::from_slice(&body).expect("an object");
                let object = stored.objects.get_mut(&path).expect("it is there");
                object["metadata"]["managedFields"] = patch["metadata"]["managedFields"].clone();
                (200, object.clone())
            } else {
                let mut object: Value = serde_json::from_slice(&body).expect("an object");
                if head.method == Method::POST {
                    path = format!("{path}/{}", object["metadata"]["name"].as_str().expect("a name"));
                }
                let next = stored.asked.len().to_string();
                object["metadata"]["uid"] = path.clone().into();
                object["metadata"]["resourceVersion"] = next.into();
                object["metadata"]["generation"] = 1.into();
                stored.objects.insert(path, object.clone());
                (200, object)
            };
            let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok(response)
        }

        /// How many requests came since the last time, and how many of them were writes.
        fn asked(&self) -> (usize, usize) {
            let methods = std::mem::take(&mut self.stored().asked);
            (methods.len(), methods.iter().filter(|method| **method != Method::GET).count())
        }
    }

    struct World {
        api: Api,
        client: Client,
        service: EmbeddingService,
        memory: Mutex<Memory>,
        deployments: Writer<Deployed>,
    }

    impl World {
        fn new() -> Self {
            let api = Api::default();
            let answers = api.clone();
            let client = Client::new(service_fn(move |request| answers.clone().answer(request)), "search");
            let (_, deployments) = reflector::store();
            Self { api, client, service: object(json!({})), memory: Mutex::default(), deployments }
        }

        /// Applies the objects of the service, and says how many requests and writes that took.
        async fn apply(&self) -> (usize, usize) {
            let objects =
                build::build(&validate(&self.service).expect("valid"), &config()).expect("there are images");
            let applier = Applier {
                client: &self.client,
                service: &self.service.metadata,
                memory: &self.memory,
                deployments: &self.deployments.as_reader(),
            };
            applier.apply(&objects).await.expect("an API server that works");
            self.api.asked()
        }

        /// The watch tells of the Deployment, as it is stored but for this.
        fn see(&mut self, change: impl FnOnce(&mut Deployed)) {
            let stored = self.api.stored().objects.clone();
            let found =
                stored.into_iter().find(|(path, _)| path.contains("/deployments/")).expect("it was made");
            let mut deployment: Deployed = serde_json::from_value(found.1).expect("a Deployment");
            change(&mut deployment);
            self.deployments.apply_watcher_event(&watcher::Event::Apply(deployment));
        }
    }

    #[tokio::test]
    async fn what_has_not_changed_costs_no_request() {
        let mut world = World::new();
        assert_eq!(world.apply().await, (8, 4), "each of four is looked for and created");
        // The watch has not told of the Deployment yet.
        assert_eq!(world.apply().await, (2, 1));
        world.see(|_| ());
        assert_eq!(world.apply().await, (0, 0));
        world.service.spec.replicas = 5;
        assert_eq!(world.apply().await, (2, 1), "the Deployment alone has the count");
    }

    #[tokio::test]
    async fn what_others_changed_is_made_right() {
        let mut world = World::new();
        world.apply().await;
        world.see(|_| ());
        world.api.asked();
        assert_eq!(world.apply().await, (0, 0));
        world.see(|deployment| deployment.metadata.generation = Some(2));
        assert_eq!(world.apply().await, (2, 1), "somebody edited it");
        world.see(|deployment| deployment.metadata.labels = None);
        assert_eq!(world.apply().await, (2, 1), "somebody took its labels");
        // Who annotates the service has everything looked at, also what is not watched.
        world.see(|_| ());
        world.service.metadata.annotations = Some([("look".to_owned(), "again".to_owned())].into());
        assert_eq!(world.apply().await, (8, 4));
    }

    /// Once, what a user took out of a spec stayed in the Deployment for ever, for it had been created with it.
    #[tokio::test]
    async fn what_was_created_can_be_taken_away_later() {
        let mut world = World::new();
        world.apply().await;
        let created = json!([{"manager": FIELD_MANAGER, "operation": "Update", "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
        let own = |object: &mut Value| object["metadata"]["managedFields"] = created.clone();
        world.api.stored().objects.values_mut().for_each(own);
        world.see(|_| ());
        world.service.spec.replicas = 5;
        assert_eq!(world.apply().await, (3, 2), "it is looked for, made ours, and applied");
    }

    #[tokio::test]
    async fn an_object_of_somebody_else_is_not_written_to_though_ours_was_there() {
        let world = World::new();
        world.apply().await;
        let disown = |object: &mut Value| object["metadata"]["ownerReferences"] = json!([]);
        world.api.stored().objects.values_mut().for_each(disown);
        world.api.asked();
        let objects =
            build::build(&validate(&world.service).expect("valid"), &config()).expect("there are images");
        let (memory, deployments) = (Mutex::default(), world.deployments.as_reader());
        let applier = Applier {
            client: &world.client,
            service: &world.service.metadata,
            memory: &memory,
            deployments: &deployments,
        };
        assert!(matches!(applier.apply(&objects).await, Err(ApplyError::NotOurs { .. })));
        assert_eq!(world.api.asked().1, 0);
    }
}
