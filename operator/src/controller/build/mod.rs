//! The objects made for a service, one file a kind. All pure: a service and the configuration in, an object out.

mod config_map;
mod deployment;
mod image;
mod network_policy;
mod pod_disruption_budget;
mod pod_spec;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service as KubeService},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kembed_crds::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL};

pub use image::NoImage;
pub(crate) use pod_spec::{CONTAINER, CREDENTIALS_VOLUME};

use super::{config::Config, validate::Service};

/// All objects of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The inference pods.
    pub deployment: Deployment,
    /// The address.
    pub service: KubeService,
    /// The recorded vector space, for later pods; none before it is recorded.
    pub space: Option<ConfigMap>,
    /// How many pods a drain may take at a time.
    pub pod_disruption_budget: PodDisruptionBudget,
    /// Who may talk to the pods and whom they may talk to; none if the platform team does without.
    pub network_policy: Option<NetworkPolicy>,
}

/// Builds all objects of a service.
///
/// # Errors
/// If there is no image for its pods.
pub fn build(service: &Service, config: &Config) -> Result<Objects, NoImage> {
    let image = image::choose(service, &config.inference_pod)?;
    Ok(Objects {
        deployment: deployment::build(service, config, image),
        service: service::build(service, config),
        space: config_map::build(service),
        pod_disruption_budget: pod_disruption_budget::build(service),
        network_policy: config.network_policy.enabled.then(|| network_policy::build(service, config)),
    })
}

/// The selector of a service's pods as text, for the scale subresource.
pub fn selector_text(name: &str) -> String {
    format!("{SERVICE_LABEL}={name}")
}

/// Metadata of an object of that name.
fn meta(service: &Service, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(service.namespace.clone()),
        labels: Some(labels(service)),
        owner_references: Some(vec![service.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "embedding-service"),
        ("app.kubernetes.io/instance", &service.name),
        (MANAGED_BY_LABEL, MANAGED_BY),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn selector(service: &Service) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(SERVICE_LABEL.to_owned(), service.name.clone())].into()),
        ..LabelSelector::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::{
        config::tests::config,
        validate::{tests::object, validate},
    };

    fn objects(change: Value) -> Value {
        let objects = build(&validate(&object(change)).expect("valid"), &config()).expect("there are images");
        json!({"deployment": objects.deployment, "service": objects.service, "space": objects.space,
            "pdb": objects.pod_disruption_budget, "policy": objects.network_policy})
    }

    fn container(objects: &Value) -> &Value {
        &objects["deployment"]["spec"]["template"]["spec"]["containers"][0]
    }

    fn args(objects: &Value) -> Vec<&str> {
        container(objects)["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    #[test]
    fn every_object_is_owned_and_labelled() {
        let objects =
            objects(json!({"status": {"space": {"digest": "sha256:00", "dimension": 1, "maxTokens": 1}}}));
        for kind in ["deployment", "service", "space", "pdb", "policy"] {
            let meta = &objects[kind]["metadata"];
            assert_eq!(meta["ownerReferences"][0]["uid"], "2f1c", "{kind}");
            assert_eq!(meta["ownerReferences"][0]["controller"], true, "{kind}");
            assert_eq!(meta["labels"]["app.kubernetes.io/managed-by"], "kembed", "{kind}");
            assert_eq!(meta["namespace"], "search", "{kind}");
        }
    }

    #[test]
    fn pods_are_confined() {
        let objects = objects(json!({}));
        let pod = &objects["deployment"]["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let security = &container(&objects)["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    }

    /// As the first of a namespace a process took no notice of it before it had started.
    #[test]
    fn a_pod_ends_when_it_is_told_to_however_early() {
        let objects = objects(json!({}));
        let pod = &objects["deployment"]["spec"]["template"]["spec"];
        assert_eq!(pod["shareProcessNamespace"], true);
    }

    #[test]
    fn pods_tell_who_takes_nodes_away_what_they_stand_and_users_may_differ() {
        let template =
            |spec| objects(spec)["deployment"]["spec"]["template"]["metadata"]["annotations"].clone();
        let (evict, shield) =
            ("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes", "karpenter.sh/do-not-disrupt");
        assert_eq!(template(json!({})), json!({evict: "kembed-cache", shield: "10m"}));
        let own = json!({"spec": {"podTemplate": {"annotations": {shield: "true"}}}});
        assert_eq!(template(own)[shield], "true");
    }

    #[test]
    fn a_service_account_is_mounted_only_if_named() {
        let objects = objects(json!({"spec": {"podTemplate": {"serviceAccountName": "reader"}}}));
        let pod = &objects["deployment"]["spec"]["template"]["spec"];
        assert_eq!(
            (&pod["serviceAccountName"], &pod["automountServiceAccountToken"]),
            (&json!("reader"), &Value::Null)
        );
    }

    #[test]
    fn an_accelerator_is_requested_and_named() {
        let spec = json!({"accelerator": {"resource": {"name": "nvidia.com/gpu", "count": 2}},
            "podTemplate": {"resources": {"requests": {"cpu": "3"}}}});
        let objects = objects(json!({"spec": spec}));
        let resources = &container(&objects)["resources"];
        assert_eq!(resources["limits"]["nvidia.com/gpu"], "2");
        assert_eq!(resources["requests"]["cpu"], "3");
        assert!(args(&objects).windows(2).any(|pair| pair == ["--accelerator", "nvidia.com/gpu"]));
    }

    #[test]
    fn the_image_is_chosen_by_the_accelerator() {
        let on =
            |name: &str| objects(json!({"spec": {"accelerator": {"resource": {"name": name, "count": 1}}}}));
        let gpu = |name: &str| json!({"name": name, "value": "compute,utility"});
        for (objects, image, env) in [
            (objects(json!({})), "kembed/inference-pod:1", Value::Null),
            (on("amd.com/gpu"), "kembed/inference-pod:1", Value::Null),
            (on("nvidia.com/gpu"), "kembed/inference-pod-cuda:1", gpu("NVIDIA_DRIVER_CAPABILITIES")),
            (on("nvidia.com/mig-1g.10gb"), "kembed/inference-pod-cuda:1", gpu("NVIDIA_DRIVER_CAPABILITIES")),
        ] {
            assert_eq!(container(&objects)["image"], image);
            assert_eq!(container(&objects)["env"][0], env, "{image}");
        }
    }

    #[test]
    fn without_an_image_for_gpus_it_is_told_what_to_configure() {
        let mut config = config();
        config.inference_pod.cuda_image = None;
        let with = |name: &str| json!({"spec": {"accelerator": {"resource": {"name": name, "count": 1}}}});
        let built = |change: Value| build(&validate(&object(change)).expect("valid"), &config);
        let error = built(with("nvidia.com/mig-1g.10gb")).expect_err("there is none").to_string();
        assert!(error.starts_with("nvidia.com/mig-1g.10gb was asked for"), "{error}");
        assert!(error.contains("inferencePod.cudaImage.repository"), "{error}");
        assert!(built(json!({})).is_ok() && built(with("amd.com/gpu")).is_ok());
    }

    #[test]
    fn who_runs_the_platform_says_what_a_container_may_use_of_a_driver() {
        let name = "NVIDIA_DRIVER_CAPABILITIES";
        let mut config = config();
        let own = k8s_openapi::api::core::v1::EnvVar {
            name: name.into(),
            value: Some("all".into()),
            ..Default::default()
        };
        config.inference_pod.env = vec![own];
        let spec = json!({"spec": {"accelerator": {"resource": {"name": "nvidia.com/gpu", "count": 1}}}});
        let built = build(&validate(&object(spec)).expect("valid"), &config).expect("there are images");
        let built = json!({"deployment": built.deployment});
        assert_eq!(container(&built)["env"], json!([{"name": name, "value": "all"}]));
    }

    #[test]
    fn a_pod_may_finish_its_longest_request_before_it_is_killed() {
        for (request_timeout, flag, seconds) in
            [("30s", "30s", 45), ("10m", "600s", 615), ("1500ms", "1500ms", 17)]
        {
            let traffic =
                json!({"queueTimeout": "1m", "requestTimeout": request_timeout, "maxQueuedRequests": 1});
            let objects = objects(json!({"spec": {"traffic": traffic}}));
            let pod = &objects["deployment"]["spec"]["template"]["spec"];
            assert_eq!(pod["terminationGracePeriodSeconds"], seconds);
            for name in ["--request-timeout", "--shutdown-grace"] {
                assert!(args(&objects).windows(2).any(|pair| pair == [name, flag]), "{name} {flag}");
            }
        }
    }

    #[test]
    fn a_pod_knows_what_its_cache_may_hold() {
        let cache = json!({"emptyDir": {"sizeLimit": "2Gi"}});
        let limited =
            objects(json!({"spec": {"model": {"uri": "hf://sentence-transformers/a", "cache": cache}}}));
        assert!(args(&limited).windows(2).any(|pair| pair == ["--cache-size-limit", "2Gi"]));
        assert!(!args(&objects(json!({}))).contains(&"--cache-size-limit"));
    }

    #[test]
    fn a_model_on_a_volume_is_mounted_and_not_downloaded() {
        let objects = objects(json!({"spec": {"model": {"uri": "pvc://models/minilm/"}}}));
        let pod = &objects["deployment"]["spec"]["template"]["spec"];
        let volume = pod["volumes"].as_array().and_then(|v| v.iter().find(|v| v["name"] == "kembed-model"));
        assert_eq!(
            volume.map(|v| &v["persistentVolumeClaim"]),
            Some(&json!({"claimName": "models", "readOnly": true}))
        );
        assert!(args(&objects).windows(2).any(|pair| pair == ["--model", "/models/minilm"]));
    }

    #[test]
    fn a_model_in_an_image_is_an_image_volume() {
        let objects = objects(json!({"spec": {"model": {"uri": "image://a.b/c:1"}}}));
        let pod = &objects["deployment"]["spec"]["template"]["spec"];
        let volume = pod["volumes"].as_array().and_then(|v| v.iter().find(|v| v["name"] == "kembed-model"));
        assert_eq!(volume.map(|v| &v["image"]["reference"]), Some(&json!("a.b/c:1")));
        assert!(args(&objects).windows(2).any(|pair| pair == ["--model", "/models"]));
    }

    #[test]
    fn a_users_variable_wins_over_the_platforms() {
        let object =
            object(json!({"spec": {"podTemplate": {"env": [{"name": "HF_ENDPOINT", "value": "mine"}]}}}));
        let mut config = config();
        let platform = |name: &str| k8s_openapi::api::core::v1::EnvVar {
            name: name.into(),
            value: Some("platform".into()),
            ..Default::default()
        };
        config.inference_pod.env = vec![platform("HF_ENDPOINT"), platform("HTTPS_PROXY")];
        let built = build(&validate(&object).expect("valid"), &config).expect("there are images");
        let built = json!({"deployment": built.deployment});
        let mut env: Vec<_> = container(&built)["env"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| (e["name"].as_str().unwrap_or_default(), e["value"].as_str().unwrap_or_default()))
            .collect();
        env.sort_unstable();
        assert_eq!(env, [("HF_ENDPOINT", "mine"), ("HTTPS_PROXY", "platform")]);
    }

    #[test]
    fn the_recorded_space_does_not_roll_the_pods() {
        let before = objects(json!({}));
        let after =
            objects(json!({"status": {"space": {"digest": "sha256:00", "dimension": 1, "maxTokens": 1}}}));
        assert_eq!(before["deployment"], after["deployment"]);
        assert_eq!((before["space"].is_null(), after["space"].is_null()), (true, false));
    }

    /// Once, requests failed in a rollout: the old pod was gone before a gateway had asked the new one.
    #[test]
    fn a_pod_goes_only_after_gateways_had_time_to_know_its_successor() {
        let spec = &objects(json!({}))["deployment"]["spec"];
        assert_eq!(spec["minReadySeconds"], 1);
        assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    }

    #[test]
    fn scaling_does_not_roll_the_pods() {
        let (one, two) = (objects(json!({})), objects(json!({"spec": {"replicas": 2}})));
        assert_eq!(one["deployment"]["spec"]["template"], two["deployment"]["spec"]["template"]);
        assert_eq!(two["deployment"]["spec"]["replicas"], 2);
    }
}
