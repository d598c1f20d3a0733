//! Makes the cluster's objects as built, by server-side apply, and leaves objects of others alone.

use std::fmt::Debug;

use k8s_openapi::{NamespaceResourceScope, api::apps::v1::Deployment};
use kembed_crds::conditions::Reason;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::Status,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{build::Objects, pods::Hindrance};

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

/// Applies all objects of a service. The address comes first: it costs nothing, and the rest takes time.
///
/// # Errors
/// The first object that could not be applied; those before it are.
pub async fn apply(
    client: &Client,
    namespace: &str,
    owner: &str,
    objects: &Objects,
) -> Result<Deployment, ApplyError> {
    let applier = Applier { client, namespace, owner };
    applier.apply(&objects.service).await?;
    applier.apply(&objects.pod_disruption_budget).await?;
    if let Some(policy) = &objects.network_policy {
        applier.apply(policy).await?;
    }
    if let Some(space) = &objects.space {
        applier.apply(space).await?;
    }
    applier.apply(&objects.deployment).await
}

struct Applier<'a> {
    client: &'a Client,
    namespace: &'a str,
    owner: &'a str,
}

impl Applier<'_> {
    async fn apply<K>(&self, object: &K) -> Result<K, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.name_any();
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let failed = |error| classify::<K>(&name, error);
        let Some(found) = api.get_metadata_opt(&name).await.map_err(failed)? else {
            // Created, not applied: if somebody makes one in this moment, this is refused rather than merged into it.
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            return api.create(&params, object).await.map_err(failed);
        };
        if !found
            .owner_references()
            .iter()
            .any(|owner| owner.uid == self.owner && owner.controller == Some(true))
        {
            return Err(ApplyError::NotOurs { kind: K::kind(&()).into_owned(), name });
        }
        // With its uid, so that an object of somebody else that has taken its place is not touched either.
        let mut ours = object.clone();
        ours.meta_mut().uid = found.metadata.uid;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(&ours)).await.map_err(failed)
    }
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
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

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
}
