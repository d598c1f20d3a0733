//! A service that scales, as the API server tells it. Pure.

use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason as ConditionReason},
};
use kembed_scaling::{Reason, Settings};

use super::settings::settings;

/// A service that scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// No other service ever has it, not even one of the same name.
    pub uid: String,
    /// What the user wants.
    pub settings: Settings,
    /// The count in its spec.
    pub replicas: u32,
    /// Its `resourceVersion`.
    pub version: String,
    /// What its status says why.
    pub told: Option<Reason>,
    /// Whether its status says that the objective can be kept.
    pub told_attainable: Option<bool>,
    /// What who orders nodes says of one for a pod that waits for it: whether one comes.
    pub node_comes: Option<bool>,
}

impl Seen {
    /// `None` of a service whose count is somebody else's, or which is being deleted.
    pub fn of(object: &EmbeddingService) -> Option<Self> {
        let scaling =
            object.spec.scaling.as_ref().filter(|_| object.metadata.deletion_timestamp.is_none())?;
        let status = object.status.as_ref();
        let told = status.and_then(|status| status.scaling.as_ref());
        let condition = |type_: ConditionType| {
            let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
            conditions.find(|condition| condition.type_ == type_.as_str())
        };
        let capacity = condition(ConditionType::CapacityAvailable);
        let node_comes = match capacity.and_then(|condition| ConditionReason::parse(&condition.reason)) {
            Some(ConditionReason::NodeOrdered) => Some(true),
            Some(ConditionReason::CapacityRefused) => Some(false),
            _ => None,
        };
        Some(Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            settings: settings(scaling),
            replicas: u32::try_from(object.spec.replicas).unwrap_or(0),
            version: object.metadata.resource_version.clone()?,
            told: told.and_then(|told| Reason::parse(&told.reason)),
            told_attainable: condition(ConditionType::ObjectiveAttainable).and_then(|condition| {
                match condition.status.as_str() {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                }
            }),
            node_comes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_scaling_it_is_nobody_of_ours() {
        let object = |spec: serde_json::Value| {
            let object = serde_json::json!({"apiVersion": "kembed.dev/v1alpha1", "kind": "EmbeddingService",
                "metadata": {"name": "s", "namespace": "t", "resourceVersion": "7"}, "spec": spec});
            serde_json::from_value::<EmbeddingService>(object).expect("an EmbeddingService")
        };
        let model = serde_json::json!({"model": {"uri": "hf://a/b"}, "replicas": 9});
        assert_eq!(Seen::of(&object(model.clone())), None);
        let mut scales = model;
        scales["scaling"] = serde_json::json!({"maxReplicas": 4});
        let mut object = object(scales);
        let seen = Seen::of(&object).expect("it scales");
        assert_eq!((seen.replicas, seen.settings.max, &*seen.version), (9, 4, "7"));
        object.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(Seen::of(&object), None);
    }
}
