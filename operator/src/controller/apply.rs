//! Makes the cluster's objects as built, by server-side apply, deletes what is not to be there any more, and leaves alone
//! objects of others and what is as built already.

use std::{
    fmt::{self, Debug},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, networking::v1::NetworkPolicy},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kembed_crds::conditions::Reason;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    build::Objects,
    deployed::Deployed,
    fields,
    memory::{Key, Memory, Need, Print},
    pods::Hindrance,
};
use crate::api_errors::namespace_terminates;

/// Name under which the controller owns fields.
pub const FIELD_MANAGER: &str = "kembed-controller";

/// Annotation that tells what an object was built like when it was written last: what is not to be so any more cannot be told
/// by looking at it. A count is left out: what annotates a Deployment is written to its ReplicaSets too.
const STAMP: &str = "kembed.dev/applied";

/// Why an object is not as built.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of the name is there and belongs to somebody else.
    #[error("{0} exists and does not belong to this EmbeddingService")]
    NotOurs(Named),
    /// The API server refused it.
    #[error("the API server refused {object}: {message}")]
    Rejected {
        /// Which.
        object: Named,
        /// What the API server said.
        message: String,
    },
    /// The namespace is being deleted, and everything in it.
    #[error("the namespace of {0} is being deleted")]
    NamespaceTerminating(Named),
    /// The API server could not be asked, or somebody else was faster: worth another try.
    #[error("failed to apply {object}")]
    Failed {
        /// Which.
        object: Named,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl ApplyError {
    /// What a user is told, if another try alone cannot help.
    pub fn hindrance(&self) -> Option<Hindrance> {
        let reason = match self {
            Self::NotOurs(_) => Reason::NameConflict,
            Self::Rejected { .. } => Reason::PodRejected,
            Self::NamespaceTerminating(_) | Self::Failed { .. } => return None,
        };
        Some(Hindrance::new(reason, self.to_string()))
    }
}

/// An object of the cluster, as people call it: `Service minilm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    kind: String,
    name: String,
}

impl Named {
    fn of<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        Self { kind: K::kind(&()).into_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The Deployment of a service, as built.
#[derive(Clone, Debug)]
pub struct Made {
    /// As it was seen last.
    pub deployment: Arc<Deployed>,
    /// Since when it is to be so.
    pub since: Instant,
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

/// An object as it is to be.
struct Wanted<'a, K> {
    built: &'a K,
    key: Key,
    print: Print,
}

impl Applier<'_> {
    /// Applies those objects that are not known to be as built. The address comes first: it costs nothing, and the rest
    /// takes time.
    ///
    /// # Errors
    /// The first object that could not be applied; those before it are.
    pub async fn apply(&self, objects: &Objects) -> Result<Made, ApplyError> {
        self.keep(&objects.service).await?;
        self.keep(&objects.pod_disruption_budget).await?;
        match &objects.network_policy {
            Some(policy) => self.keep(policy).await?,
            None => self.discard::<NetworkPolicy>().await?,
        }
        if let Some(space) = &objects.space {
            self.keep(space).await?;
        }
        let deployment = self.deployment(&objects.deployment).await?;
        let since = self.memory().since(&self.key::<Deployment>()).unwrap_or_else(Instant::now);
        Ok(Made { deployment, since })
    }

    /// An object that is watched.
    async fn deployment(&self, built: &Deployment) -> Result<Arc<Deployed>, ApplyError> {
        let (wanted, name) = (self.wanted(built), built.name_any());
        let seen =
            self.deployments.get(&ObjectRef::new(&name).within(&built.namespace().unwrap_or_default()));
        let stands =
            |seen: &Arc<Deployed>| self.memory().stands(&wanted.key, wanted.print, built.meta(), seen.meta());
        if let Some(seen) = seen.filter(stands) {
            return Ok(seen);
        }
        let known = self.memory().knows(&wanted.key);
        let deployment = match self.find::<Deployment>(&name).await? {
            Some(found) if !known && self.recognises(&found, &wanted) => found,
            found => self.put(wanted, found.as_ref()).await?,
        };
        Ok(Arc::new(deployment.into()))
    }

    /// An object that is not watched.
    async fn keep<K: Kept>(&self, built: &K) -> Result<(), ApplyError> {
        let wanted = self.wanted(built);
        let need = self.memory().need(&wanted.key, wanted.print, Instant::now());
        if need == Need::Nothing {
            return Ok(());
        }
        let found = self.find::<K>(&built.name_any()).await?;
        let stands = |found: &K| match need {
            Need::Look => self.memory().is_unchanged(&wanted.key, found.meta(), Instant::now()),
            Need::Compare => self.recognises(found, &wanted),
            Need::Nothing | Need::Apply => false,
        };
        if found.as_ref().is_some_and(stands) {
            return Ok(());
        }
        self.put(wanted, found.as_ref()).await.map(drop)
    }

    /// Deletes the object of the service's own name, if it is ours: a configuration that was there before had it made. Once is
    /// enough for a process, whose configuration stays.
    async fn discard<K: Kept>(&self) -> Result<(), ApplyError> {
        let (key, name) = (self.key::<K>(), self.service.name.as_deref().unwrap_or_default());
        if self.memory().knows(&key) {
            return Ok(());
        }
        if let Some(found) = self.find::<K>(name).await?.filter(|found| self.owns(found.meta())) {
            // With its uid, so that an object of somebody else that has taken its place stays.
            let preconditions = Preconditions { uid: found.meta().uid.clone(), ..Preconditions::default() };
            let params = DeleteParams::default().preconditions(preconditions);
            match self.api::<K>().delete(name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => (),
                deleted => drop(deleted.map_err(|error| classify::<K>(name, error))?),
            }
        }
        self.memory().applied(key, Print::of(&"gone", self.service), &ObjectMeta::default(), Instant::now());
        Ok(())
    }

    fn wanted<'k, K: Kept>(&self, built: &'k K) -> Wanted<'k, K> {
        Wanted { built, key: self.key::<K>(), print: Print::of(built, self.service) }
    }

    /// What is there of that name.
    async fn find<K: Kept>(&self, name: &str) -> Result<Option<K>, ApplyError> {
        self.api::<K>().get_opt(name).await.map_err(|error| classify::<K>(name, error))
    }

    /// Whether what was found is ours and as built, so that to apply it would change nothing. If so it is remembered as if
    /// it had been applied: a new leader finds most objects so.
    fn recognises<K: Kept>(&self, found: &K, wanted: &Wanted<'_, K>) -> bool {
        let (meta, built) = (found.meta(), json_of(wanted.built));
        let same = self.owns(meta)
            && meta.annotations.as_ref().and_then(|found| found.get(STAMP)) == Some(&stamp(built.clone()))
            && fields::keeps(meta, FIELD_MANAGER, &json_of(found), &built);
        if same {
            self.memory().applied(wanted.key.clone(), wanted.print, meta, Instant::now());
        }
        same
    }

    /// Creates it if nothing was found of its name, and applies it if what was found is ours.
    async fn put<K: Kept>(&self, wanted: Wanted<'_, K>, found: Option<&K>) -> Result<K, ApplyError> {
        let Wanted { built, key, print } = wanted;
        let (name, api) = (built.name_any(), self.api::<K>());
        let mut ours = built.clone();
        ours.annotations_mut().insert(STAMP.into(), stamp(json_of(built)));
        let put = match found.map(K::meta) {
            None => {
                // Created, not applied: if somebody makes one in this moment, this is refused rather than merged into it.
                let params =
                    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
                api.create(&params, &ours).await
            }
            Some(found) if self.owns(found) => {
                self.adopt::<K>(&name, found).await?;
                // With its uid, so that an object of somebody else that has taken its place is not touched either.
                ours.meta_mut().uid = found.uid.clone();
                let params = PatchParams::apply(FIELD_MANAGER).force();
                api.patch(&name, &params, &Patch::Apply(&ours)).await
            }
            Some(_) => return Err(ApplyError::NotOurs(Named::of::<K>(&name))),
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

/// An object that cannot be written down is one that the API server cannot be sent either.
fn json_of(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Tells an object that was built from what was built otherwise. Unlike a [`Print`], which one process keeps to itself, it is
/// read by the next leader: it is of the object alone, whatever its service says of itself. A release that hashes otherwise
/// applies everything once.
fn stamp(mut built: Value) -> String {
    if let Some(spec) = built.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("replicas");
    }
    let mut hasher = DefaultHasher::new();
    built.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
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
    let object = Named::of::<K>(name);
    match error {
        kube::Error::Api(status) if namespace_terminates(&status) => ApplyError::NamespaceTerminating(object),
        // Bad request, forbidden (by a quota or an admission policy) or invalid: asking again will not help.
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            ApplyError::Rejected { object, message: status.message }
        }
        error => ApplyError::Failed { object, source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests;
