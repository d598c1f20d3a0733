//! The inference pod: one container, confined, with the model's volumes.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
        HTTPGetAction, ImageVolumeSource, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
        Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
        TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kembed_crds::uri::ModelUri;
use kembed_queue::wire;

use super::{
    super::{
        config::Config,
        validate::{CacheVolume, Service},
    },
    config_map,
    image::wants_cuda,
    selector,
};

/// Name of the inference container.
pub(crate) const CONTAINER: &str = "inference-pod";
/// Name of the volume that credentials are mounted from.
pub(crate) const CREDENTIALS_VOLUME: &str = "kembed-credentials";
pub(super) const CACHE_VOLUME: &str = "kembed-cache";
const MODEL_VOLUME: &str = "kembed-model";
const SPACE_VOLUME: &str = "kembed-space";

const CACHE_PATH: &str = "/var/cache/kembed";
const MODEL_PATH: &str = "/models";
const SPACE_PATH: &str = "/etc/kembed/space";
const CREDENTIALS_PATH: &str = "/etc/kembed/credentials";
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// User and group `nonroot` of the images.
const NONROOT: i64 = 65532;

/// Seconds that a pod has beyond its longest request when it is asked to end: one in which it still accepts, two for its
/// threads, and some for a node that is slow at its own part.
const GRACE_SECONDS: u64 = 15;

/// What NVIDIA's container toolkit brings of the driver: CUDA, and what measures the device. Which devices, the device plugin
/// says.
const DRIVER_CAPABILITIES: (&str, &str) = ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility");

pub(super) fn build(service: &Service, config: &Config, image: &str) -> PodSpec {
    let template = &service.pod_template;
    PodSpec {
        containers: vec![container(service, config, image)],
        volumes: Some([volumes(service), template.volumes.clone()].concat()),
        node_selector: some(&template.node_selector),
        tolerations: some(&template.tolerations),
        affinity: template.affinity.clone(),
        topology_spread_constraints: some(&spread(service)),
        priority_class_name: template.priority_class_name.clone(),
        runtime_class_name: template.runtime_class_name.clone(),
        image_pull_secrets: some(&template.image_pull_secrets),
        service_account_name: template.service_account_name.clone(),
        // A pod talks to nobody's API server, unless an account was named for a cloud's identity of workloads.
        automount_service_account_token: template.service_account_name.is_none().then_some(false),
        enable_service_links: Some(false),
        // The first process of a namespace takes no signal before it has said how. A pod that was told to end just as its
        // container began would go on for all of its grace, with its device.
        share_process_namespace: Some(true),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NONROOT),
            run_as_group: Some(NONROOT),
            fs_group: Some(NONROOT),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: i64::try_from(
            service.request_timeout.as_secs()
                + u64::from(service.request_timeout.subsec_nanos() > 0)
                + GRACE_SECONDS,
        )
        .ok(),
        ..PodSpec::default()
    }
}

fn container(service: &Service, config: &Config, image: &str) -> Container {
    Container {
        name: CONTAINER.into(),
        image: Some(image.to_owned()),
        image_pull_policy: config.inference_pod.image_pull_policy.clone(),
        args: Some(args(service)),
        env: some(&env(&env(&device_env(service), &config.inference_pod.env), &service.pod_template.env)),
        ports: Some(vec![ContainerPort {
            name: Some("http".into()),
            container_port: wire::POD_PORT.into(),
            protocol: Some("TCP".into()), // named, for the key of server-side apply
            ..ContainerPort::default()
        }]),
        resources: Some(resources(service, config)),
        volume_mounts: Some([mounts(service), service.pod_template.volume_mounts.clone()].concat()),
        // A pod that has just loaded its model is used within a second, and one that says it is unready as fast.
        readiness_probe: Some(probe(wire::READY_PATH, 1, 1)),
        // Half a minute without an answer: the process hangs.
        liveness_probe: Some(probe(wire::LIVE_PATH, 10, 3)),
        termination_message_path: Some(TERMINATION_MESSAGE_PATH.into()),
        // A pod that ended without a word of its own has left its last log lines.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn args(service: &Service) -> Vec<String> {
    let model = &service.model;
    let location = match &model.uri {
        ModelUri::Download(uri) => uri.clone(),
        ModelUri::Image { .. } => MODEL_PATH.into(),
        ModelUri::PersistentVolumeClaim { folder, .. } if folder.is_empty() => MODEL_PATH.into(),
        ModelUri::PersistentVolumeClaim { folder, .. } => format!("{MODEL_PATH}/{folder}"),
    };
    let cache_limit = match &model.cache {
        CacheVolume::EmptyDir(limit) => limit.as_ref().map(|limit| limit.0.clone()),
        CacheVolume::PersistentVolumeClaim(_) => None,
    };
    let request_timeout = duration(service.request_timeout);
    let space_file = format!("{SPACE_PATH}/{}", config_map::KEY);
    let flags = [
        ("--model", Some(location)),
        ("--file", model.file.clone()),
        ("--name", Some(format!("{}/{}", service.namespace, service.name))),
        ("--listen", Some(format!("0.0.0.0:{}", wire::POD_PORT))),
        ("--cache-dir", Some(CACHE_PATH.into())),
        // The node ends a pod that has more there, and each one after it.
        ("--cache-size-limit", cache_limit),
        ("--max-tokens", model.max_tokens.map(|tokens| tokens.to_string())),
        ("--pooling", Some(flag_value(model.pooling))),
        ("--normalization", Some(flag_value(model.normalization))),
        ("--precision", Some(flag_value(model.precision))),
        ("--query-prompt", model.query_prompt.clone()),
        ("--document-prompt", model.document_prompt.clone()),
        ("--digest", model.digest.clone()),
        ("--recorded-space", Some(space_file)),
        ("--accelerator", service.accelerator.as_ref().map(|resource| resource.name.clone())),
        ("--credentials-dir", model.secret.as_ref().map(|_| CREDENTIALS_PATH.into())),
        ("--request-timeout", Some(request_timeout.clone())),
        // The longest request that came just before the end is finished.
        ("--shutdown-grace", Some(request_timeout)),
        ("--termination-message", Some(TERMINATION_MESSAGE_PATH.into())),
    ];
    let set = flags.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
    [vec!["serve".to_owned()], set.flatten().collect()].concat()
}

/// As the pod's flags write it.
fn duration(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// A variant of one of the API's enums as the pod's flags write it: `LastToken` becomes `last-token`.
fn flag_value(variant: impl std::fmt::Debug) -> String {
    let word = format!("{variant:?}");
    // BFloat16 is one word to everybody but this rule.
    if word == "BFloat16" {
        return word.to_lowercase();
    }
    let dashed = word
        .char_indices()
        .map(|(i, c)| if i > 0 && c.is_uppercase() { format!("-{c}") } else { c.to_string() });
    dashed.collect::<String>().to_lowercase()
}

/// Variables with others, which win: the platform's with the user's.
fn env(weaker: &[EnvVar], stronger: &[EnvVar]) -> Vec<EnvVar> {
    let free = |var: &&EnvVar| stronger.iter().all(|own| own.name != var.name);
    weaker.iter().filter(free).chain(stronger).cloned().collect()
}

/// What the device needs.
fn device_env(service: &Service) -> Vec<EnvVar> {
    let (name, value) = DRIVER_CAPABILITIES;
    let capabilities = || EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() };
    wants_cuda(service).then(capabilities).into_iter().collect()
}

fn resources(service: &Service, config: &Config) -> ResourceRequirements {
    let mut resources =
        service.pod_template.resources.clone().unwrap_or_else(|| config.inference_pod.resources.clone());
    if let Some(accelerator) = &service.accelerator {
        // Devices cannot be overcommitted: the limit is the request.
        let count = Quantity(accelerator.count.to_string());
        resources.limits.get_or_insert_default().insert(accelerator.name.clone(), count);
    }
    resources
}

fn volumes(service: &Service) -> Vec<Volume> {
    let named = |name: &str| Volume { name: name.into(), ..Volume::default() };
    let model = match &service.model.uri {
        ModelUri::Download(_) => None,
        ModelUri::PersistentVolumeClaim { claim, .. } => Some(Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                read_only: Some(true),
            }),
            ..named(MODEL_VOLUME)
        }),
        ModelUri::Image { reference } => Some(Volume {
            image: Some(ImageVolumeSource {
                reference: Some(reference.clone()),
                ..ImageVolumeSource::default()
            }),
            ..named(MODEL_VOLUME)
        }),
    };
    let credentials = service.model.secret.as_ref().map(|secret| Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.clone()),
            ..SecretVolumeSource::default()
        }),
        ..named(CREDENTIALS_VOLUME)
    });
    let cache = match &service.model.cache {
        CacheVolume::EmptyDir(size_limit) => Volume {
            empty_dir: Some(EmptyDirVolumeSource { size_limit: size_limit.clone(), medium: None }),
            ..named(CACHE_VOLUME)
        },
        CacheVolume::PersistentVolumeClaim(claim) => Volume {
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                read_only: None,
            }),
            ..named(CACHE_VOLUME)
        },
    };
    let space = Volume {
        config_map: Some(ConfigMapVolumeSource {
            name: config_map::name(service),
            optional: Some(true), // the first pods come before it
            ..ConfigMapVolumeSource::default()
        }),
        ..named(SPACE_VOLUME)
    };
    [Some(cache), Some(space), model, credentials].into_iter().flatten().collect()
}

fn mounts(service: &Service) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let downloads = matches!(service.model.uri, ModelUri::Download(_));
    [
        Some(mount(CACHE_VOLUME, CACHE_PATH, false)),
        Some(mount(SPACE_VOLUME, SPACE_PATH, true)),
        (!downloads).then(|| mount(MODEL_VOLUME, MODEL_PATH, true)),
        service.model.secret.as_ref().map(|_| mount(CREDENTIALS_VOLUME, CREDENTIALS_PATH, true)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(period_seconds.clamp(1, 5)),
        ..Probe::default()
    }
}

fn spread(service: &Service) -> Vec<TopologySpreadConstraint> {
    let mut constraints = service.pod_template.topology_spread_constraints.clone();
    constraints.iter_mut().for_each(|constraint| {
        constraint.label_selector.get_or_insert_with(|| selector(service));
    });
    constraints
}

/// What server-side apply should own: nothing rather than something empty.
fn some<T: Clone + Default + PartialEq>(value: &T) -> Option<T> {
    (*value != T::default()).then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use kembed_crds::{Normalization, Pooling, Precision};

    use super::*;

    #[test]
    fn flags_are_written_as_the_pod_reads_them() {
        assert_eq!(flag_value(Pooling::LastToken), "last-token");
        assert_eq!(flag_value(Normalization::L2), "l2");
        assert_eq!(flag_value(Normalization::None), "none");
        assert_eq!(flag_value(Precision::BFloat16), "bfloat16");
        assert_eq!(flag_value(Precision::Float32), "float32");
    }
}
