//! What the platform team configures once for all services: a file, read at start.

use std::{fs, io, path::Path};

use k8s_openapi::api::{
    core::v1::{EnvVar, ResourceRequirements},
    networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer},
};
use serde::Deserialize;

/// The configuration file of the controller.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Host name of the gateway's Service, to which the Service of each EmbeddingService points.
    pub gateway_host: String,
    /// Labels of the gateways' pods in the controller's own namespace, as a selector. Their load is followed.
    #[serde(default = "gateway_selector")]
    pub gateway_selector: String,
    /// What every inference pod is made from.
    pub inference_pod: InferencePod,
    /// NetworkPolicies of inference pods.
    pub network_policy: NetworkPolicyConfig,
}

fn gateway_selector() -> String {
    "app.kubernetes.io/name=kembed,app.kubernetes.io/component=gateway".to_owned()
}

/// What every inference pod is made from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InferencePod {
    /// Image of the inference pod.
    pub image: String,
    /// The same with CUDA's libraries, for services that ask for NVIDIA's GPUs; without it they are told so.
    #[serde(default)]
    pub cuda_image: Option<String>,
    /// When the kubelet pulls either.
    #[serde(default)]
    pub image_pull_policy: Option<String>,
    /// Environment of every pod, such as `HF_ENDPOINT` for a mirror of the model hub. A service's own variables of the
    /// same name win.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Resources of pods whose service names none.
    #[serde(default)]
    pub resources: ResourceRequirements,
}

/// NetworkPolicies of inference pods.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicyConfig {
    /// Whether each service gets one.
    pub enabled: bool,
    /// Who may connect to the pods: gateways, the controller, the collector of metrics. Empty means everybody.
    #[serde(default)]
    pub from: Vec<NetworkPolicyPeer>,
    /// Where the pods may connect to besides DNS and port 443.
    #[serde(default)]
    pub extra_egress: Vec<NetworkPolicyEgressRule>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the configuration {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is not as [`Config`] describes.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: Box<serde_saphyr::Error>,
    },
    /// A value cannot work.
    #[error("the configuration is not valid: {0}")]
    Value(&'static str),
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// If it cannot be read, has unknown fields or lacks something.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(name, &text),
            Err(source) => Err(ConfigError::Read { path: name, source }),
        }
    }

    fn parse(path: String, text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_saphyr::from_str(text)
            .map_err(|source| ConfigError::Parse { path, source: Box::new(source) })?;
        // A Service of type ExternalName takes a host name only.
        let host_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if config.gateway_host.is_empty() || !config.gateway_host.chars().all(host_char) {
            return Err(ConfigError::Value("gatewayHost must be a host name, without scheme and port"));
        }
        if config.inference_pod.image.is_empty() {
            return Err(ConfigError::Value("inferencePod.image must name an image"));
        }
        if config.inference_pod.cuda_image.as_deref() == Some("") {
            return Err(ConfigError::Value("inferencePod.cudaImage must name an image, or be left out"));
        }
        Ok(config)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SMALL: &str = "gatewayHost: kembed-gateway.kembed-system.svc.cluster.local\n\
        inferencePod: {image: 'kembed/inference-pod:1', cudaImage: 'kembed/inference-pod-cuda:1'}\nnetworkPolicy: {enabled: true}\n";

    /// The smallest configuration.
    pub(crate) fn config() -> Config {
        parse(SMALL).expect("valid")
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse("controller.yaml".into(), text)
    }

    #[test]
    fn a_small_file_is_read() {
        assert_eq!(config().inference_pod.image, "kembed/inference-pod:1");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (from, to) in [
            ("kembed-gateway.kembed-system.svc.cluster.local", "http://gateway"),
            ("gatewayHost", "gatewayhost"),
            ("kembed/inference-pod:1", ""),
            ("kembed/inference-pod-cuda:1", ""),
            ("enabled: true", "enabled: true, from: 7"),
        ] {
            assert!(parse(&SMALL.replace(from, to)).is_err(), "{to:?}");
        }
    }

    #[test]
    fn an_image_for_gpus_need_not_be_there() {
        let without = SMALL.replace(", cudaImage: 'kembed/inference-pod-cuda:1'", "");
        assert_eq!(parse(&without).expect("valid").inference_pod.cuda_image, None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/kembed.yaml")).expect_err("there is none");
        assert!(error.to_string().contains("/nonexistent/kembed.yaml"));
    }
}
