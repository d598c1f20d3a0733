//! What is kept of the Deployment of a service: what tells whether somebody has changed it, and how its pods are. Pure.
//!
//! A whole one has room for each field of a pod, also of one that says nothing of pods; there are as many as services.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kembed_crds::conditions::Reason;
use kube::Resource;
use serde::Deserialize;

use super::{pods::Hindrance, status::DeploymentCounts};

/// A Deployment as it was seen last, without its spec.
#[derive(Clone, Debug, Deserialize)]
pub struct Deployed {
    /// As the API server has it.
    pub metadata: ObjectMeta,
    status: Option<DeploymentStatus>,
}

impl Deployed {
    /// Drops what nobody reads.
    pub fn slim(&mut self) {
        (self.metadata.managed_fields, self.metadata.annotations) = (None, None);
        let Some(conditions) = self.status.as_mut().and_then(|status| status.conditions.as_mut()) else {
            return;
        };
        conditions.retain(is_failure);
        conditions.shrink_to_fit();
    }

    /// The counts.
    pub fn counts(&self) -> DeploymentCounts {
        let Some(status) = &self.status else { return DeploymentCounts::default() };
        DeploymentCounts {
            current: status.observed_generation >= self.metadata.generation,
            replicas: status.replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
        }
    }

    /// Why it could not create its pods, as when a quota is exceeded.
    pub fn replica_failure(&self) -> Option<Hindrance> {
        let failure =
            self.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| is_failure(condition))?;
        Some(Hindrance::new(Reason::PodRejected, failure.message.clone().unwrap_or_default()))
    }
}

fn is_failure(condition: &DeploymentCondition) -> bool {
    condition.type_ == "ReplicaFailure" && condition.status == "True"
}

impl From<Deployment> for Deployed {
    fn from(Deployment { metadata, status, .. }: Deployment) -> Self {
        let mut deployed = Self { metadata, status };
        deployed.slim();
        deployed
    }
}

impl Resource for Deployed {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Deployment::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Deployment::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Deployment::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Deployment::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployed(status: Value) -> Deployed {
        let whole = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "s", "generation": 2, "annotations": {"a": "b"}, "managedFields": []},
            "spec": {"selector": {}, "template": {"spec": {"containers": []}}}, "status": status});
        let mut deployed: Deployed = serde_json::from_value(whole).expect("a Deployment");
        deployed.slim();
        deployed
    }

    #[test]
    fn counts_of_an_older_generation_are_not_current() {
        let counts = |seen: i64| {
            deployed(
                json!({"observedGeneration": seen, "replicas": 3, "updatedReplicas": 2, "readyReplicas": 1}),
            )
            .counts()
        };
        let current = DeploymentCounts { current: true, replicas: 3, updated: 2, ready: 1 };
        assert_eq!(counts(2), current);
        assert_eq!(counts(1), DeploymentCounts { current: false, ..current });
        assert_eq!(deployed(Value::Null).counts(), DeploymentCounts::default());
    }

    #[test]
    fn of_its_conditions_only_a_failure_is_kept() {
        let condition =
            |type_: &str, status: &str| json!({"type": type_, "status": status, "message": type_});
        let with = |failed: &str| {
            deployed(
                json!({"conditions": [condition("Available", "True"), condition("ReplicaFailure", failed)]}),
            )
        };
        let failed = with("True");
        assert_eq!(failed.replica_failure(), Some(Hindrance::new(Reason::PodRejected, "ReplicaFailure")));
        assert_eq!(failed.status.and_then(|status| status.conditions).map(|kept| kept.len()), Some(1));
        assert_eq!(with("False").replica_failure(), None);
    }

    /// Of a thousand services there are a thousand.
    #[test]
    fn it_is_much_smaller_than_a_whole_one() {
        assert!(size_of::<Deployed>() * 3 < size_of::<Deployment>(), "{}", size_of::<Deployed>());
    }
}
