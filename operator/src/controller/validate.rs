//! Whether a spec can work. After this nobody reads the raw spec.
//!
//! The API server has refused most of what cannot work already; here the rest is caught, and objects that were stored
//! before a rule existed.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::EnvVar,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};
use kembed_crds::{
    AcceleratorResource, Cache, EmbeddingService, Model, Normalization, PodTemplate, Pooling, Precision,
    Traffic, uri::ModelUri,
};
use kembed_queue::wire::RecordedSpace;
use kube::Resource;

/// A service that pods can be built for.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name, which its objects share.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Written into each object made for it.
    pub owner: OwnerReference,
    /// What the pods load.
    pub model: ServedModel,
    /// The device each pod needs.
    pub accelerator: Option<AcceleratorResource>,
    /// How many pods.
    pub replicas: i32,
    /// Pods that may exist beyond the count while pods are replaced.
    pub max_surge: IntOrString,
    /// Pods that may be missing from the count while pods are replaced.
    pub max_unavailable: IntOrString,
    /// The longest that one request may take in a pod.
    pub request_timeout: Duration,
    /// What the user adds to the pods.
    pub pod_template: PodTemplate,
    /// The vector space that later pods must serve.
    pub recorded: Option<RecordedSpace>,
}

/// What the pods load.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// Where it is.
    pub uri: ModelUri,
    /// Which ONNX file.
    pub file: Option<String>,
    /// The digest it must have.
    pub digest: Option<String>,
    /// Secret with credentials for the source.
    pub secret: Option<String>,
    /// Where downloads are kept.
    pub cache: CacheVolume,
    /// Length limit in tokens.
    pub max_tokens: Option<i32>,
    /// How one vector is made of many.
    pub pooling: Pooling,
    /// Whether vectors have length one.
    pub normalization: Normalization,
    /// Number format.
    pub precision: Precision,
    /// Put before queries.
    pub query_prompt: Option<String>,
    /// Put before documents.
    pub document_prompt: Option<String>,
}

/// Where downloads are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheVolume {
    /// With the pod, up to a size.
    EmptyDir(Option<Quantity>),
    /// On a volume that pods share, by the name of its claim.
    PersistentVolumeClaim(String),
}

/// Why no pod can be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSpec {
    /// The object came without what every stored object has.
    #[error("the object has no {0}")]
    Unstored(&'static str),
    /// A field cannot be understood or fulfilled.
    #[error("spec.{field}: {why}")]
    Field {
        /// Path below `spec`.
        field: &'static str,
        /// What is wrong with it and what to write instead.
        why: String,
    },
}

fn field(field: &'static str, why: impl ToString) -> InvalidSpec {
    InvalidSpec::Field { field, why: why.to_string() }
}

/// Reads a stored object.
///
/// # Errors
/// The first thing in it that cannot work.
pub fn validate(object: &EmbeddingService) -> Result<Service, InvalidSpec> {
    let spec = &object.spec;
    let name = object.meta().name.clone().ok_or(InvalidSpec::Unstored("name"))?;
    let namespace = object.meta().namespace.clone().ok_or(InvalidSpec::Unstored("namespace"))?;
    let owner = object.controller_owner_ref(&()).ok_or(InvalidSpec::Unstored("uid"))?;
    if spec.replicas < 0 {
        return Err(field("replicas", "write 0 or more"));
    }
    let accelerator = match &spec.accelerator {
        None => None,
        Some(accelerator) => Some(accelerator.resource.clone().ok_or_else(|| {
            field("accelerator", "needs the member resource, as in {resource: {name: nvidia.com/gpu}}")
        })?),
    };
    if accelerator.as_ref().is_some_and(|resource| resource.count < 1) {
        return Err(field("accelerator.resource.count", "write 1 or more"));
    }
    let rollout = spec.rollout.clone().unwrap_or_default();
    Ok(Service {
        name,
        namespace,
        owner,
        model: validate_model(&spec.model)?,
        accelerator,
        replicas: spec.replicas,
        max_surge: rollout.max_surge.unwrap_or(IntOrString::Int(1)),
        max_unavailable: rollout.max_unavailable.unwrap_or(IntOrString::Int(0)),
        request_timeout: request_timeout(spec.traffic.as_ref())?,
        pod_template: validate_pod_template(spec.pod_template.clone().unwrap_or_default())?,
        recorded: object
            .status
            .as_ref()
            .and_then(|status| status.space.as_ref())
            .map(|space| RecordedSpace { digest: space.digest.clone(), revision: space.revision.clone() }),
    })
}

fn validate_model(model: &Model) -> Result<ServedModel, InvalidSpec> {
    let prompts = model.prompts.clone().unwrap_or_default();
    Ok(ServedModel {
        uri: ModelUri::parse(&model.uri).map_err(|error| field("model.uri", error))?,
        file: model.file.clone(),
        digest: model.digest.clone(),
        secret: model.credentials.as_ref().map(|credentials| credentials.secret_name.clone()),
        cache: validate_cache(model.cache.clone().unwrap_or_default())?,
        max_tokens: model.max_tokens,
        pooling: model.pooling,
        normalization: model.normalization,
        precision: model.precision,
        query_prompt: prompts.query,
        document_prompt: prompts.document,
    })
}

fn validate_cache(cache: Cache) -> Result<CacheVolume, InvalidSpec> {
    match (cache.empty_dir, cache.persistent_volume_claim) {
        (Some(_), Some(_)) => {
            Err(field("model.cache", "needs exactly one of emptyDir and persistentVolumeClaim"))
        }
        (None, Some(claim)) => Ok(CacheVolume::PersistentVolumeClaim(claim.claim_name)),
        (empty_dir, None) => Ok(CacheVolume::EmptyDir(empty_dir.and_then(|dir| dir.size_limit))),
    }
}

fn request_timeout(traffic: Option<&Traffic>) -> Result<Duration, InvalidSpec> {
    let timeout = traffic.unwrap_or(&Traffic::default()).request_timeout.parse();
    timeout.map_err(|error| field("traffic.requestTimeout", error))
}

fn validate_pod_template(template: PodTemplate) -> Result<PodTemplate, InvalidSpec> {
    let reserved = |env: &&EnvVar| env.name.starts_with("KEMBED_");
    if let Some(env) = template.env.iter().find(reserved) {
        return Err(field(
            "podTemplate.env",
            format!("{} is set by kembed: use the fields of the spec", env.name),
        ));
    }
    if let Some(volume) = template.volumes.iter().find(|volume| volume.name.starts_with("kembed-")) {
        return Err(field(
            "podTemplate.volumes",
            format!("{} is a name that kembed uses: choose another", volume.name),
        ));
    }
    Ok(template)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stored object with a small valid spec, changed by `change`.
    pub(crate) fn object(change: serde_json::Value) -> EmbeddingService {
        let mut object = serde_json::json!({
            "apiVersion": "kembed.dev/v1alpha1",
            "kind": "EmbeddingService",
            "metadata": {"name": "minilm", "namespace": "search", "uid": "2f1c", "generation": 3},
            "spec": {"model": {"uri": "hf://sentence-transformers/all-MiniLM-L6-v2"}, "replicas": 1},
        });
        merge(&mut object, change);
        serde_json::from_value(object).expect("a valid object")
    }

    fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
        match (into, from) {
            (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
                from.into_iter().for_each(|(key, value)| {
                    merge(into.entry(key).or_insert(serde_json::Value::Null), value)
                });
            }
            (into, from) => *into = from,
        }
    }

    fn error(change: serde_json::Value) -> String {
        validate(&object(change)).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_small_spec_gets_defaults() {
        let service = validate(&object(serde_json::json!({}))).expect("valid");
        assert_eq!(service.model.cache, CacheVolume::EmptyDir(None));
        assert_eq!(service.request_timeout, Duration::from_secs(30));
        assert_eq!((service.max_surge, service.max_unavailable), (IntOrString::Int(1), IntOrString::Int(0)));
        assert_eq!(service.recorded, None);
        assert_eq!(service.owner.controller, Some(true));
    }

    #[test]
    fn the_recorded_space_is_read_from_the_status() {
        let space =
            serde_json::json!({"digest": "sha256:00", "revision": "abc", "dimension": 384, "maxTokens": 256});
        let service = validate(&object(serde_json::json!({"status": {"space": space}}))).expect("valid");
        assert_eq!(
            service.recorded,
            Some(RecordedSpace { digest: "sha256:00".into(), revision: Some("abc".into()) })
        );
    }

    #[test]
    fn what_an_old_rule_let_through_is_refused_with_its_field() {
        let model = |model| serde_json::json!({"spec": {"model": model}});
        assert!(error(model(serde_json::json!({"uri": "ftp://a"}))).starts_with("spec.model.uri: "));
        let cache =
            serde_json::json!({"cache": {"emptyDir": {}, "persistentVolumeClaim": {"claimName": "a"}}});
        assert!(error(model(cache)).starts_with("spec.model.cache: "));
        assert!(error(serde_json::json!({"spec": {"replicas": -1}})).starts_with("spec.replicas: "));
        assert!(error(serde_json::json!({"spec": {"accelerator": {}}})).starts_with("spec.accelerator: "));
        let timeout = serde_json::json!({"spec": {"traffic": {"queueTimeout": "1m", "requestTimeout": "soon", "maxQueuedRequests": 1}}});
        assert!(error(timeout).starts_with("spec.traffic.requestTimeout: "));
        let env = serde_json::json!({"spec": {"podTemplate": {"env": [{"name": "KEMBED_MODEL"}]}}});
        assert!(error(env).starts_with("spec.podTemplate.env: "));
        let volume = serde_json::json!({"spec": {"podTemplate": {"volumes": [{"name": "kembed-cache"}]}}});
        assert!(error(volume).starts_with("spec.podTemplate.volumes: "));
    }
}
