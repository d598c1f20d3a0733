//! The service that is simulated, from the YAML that a user would apply.

use std::time::Duration;

use kembed_crds::{EmbeddingService, InvalidDuration, Scaling};
use kembed_scaling::Settings;
use serde::Deserialize;

use crate::autoscaler::settings::settings;

/// What a latency is measured against where the service names none.
const USUAL_TARGET: Duration = Duration::from_secs(1);

/// What of a service matters for its count.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Service {
    /// What it is called.
    pub(super) name: String,
    /// What its user wants.
    pub(super) settings: Settings,
    /// The latency that requests are measured against, which need not be an objective.
    pub(super) target: Duration,
}

/// Why a text is no service that can be simulated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServiceError {
    /// No YAML, or that of something else.
    #[error("failed to parse it as an EmbeddingService")]
    Parse(#[from] Box<serde_saphyr::Error>),
    /// Another kind.
    #[error("it is {kind:?} of {version:?}: write an EmbeddingService of kembed.dev/v1alpha1")]
    Kind {
        /// What it says it is.
        kind: String,
        /// Of which version.
        version: String,
    },
    /// Somebody else decides on the count.
    #[error(
        "it has no spec.scaling, so that nothing would change its count: add one, as in `scaling: {{maxReplicas: 8}}`"
    )]
    NoScaling,
    /// What the API server would refuse.
    #[error("spec.scaling.{0}")]
    Field(&'static str),
    /// A duration that is none.
    #[error("failed to read spec.scaling.{field}")]
    Duration {
        /// Which.
        field: &'static str,
        /// Why.
        source: InvalidDuration,
    },
}

/// What any object begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl Service {
    /// Reads one.
    pub(super) fn parse(text: &str) -> Result<Self, ServiceError> {
        let head: Head = serde_saphyr::from_str(text).map_err(Box::new)?;
        if (head.api_version.as_str(), head.kind.as_str()) != ("kembed.dev/v1alpha1", "EmbeddingService") {
            return Err(ServiceError::Kind { kind: head.kind, version: head.api_version });
        }
        let service: EmbeddingService = serde_saphyr::from_str(text).map_err(Box::new)?;
        let scaling = service.spec.scaling.as_ref().ok_or(ServiceError::NoScaling)?;
        check(scaling)?;
        let settings = settings(scaling);
        let target = settings.objective.map_or(USUAL_TARGET, |objective| objective.target);
        Ok(Self { name: service.metadata.name.unwrap_or_default(), settings, target })
    }
}

/// Refuses what the API server would.
fn check(scaling: &Scaling) -> Result<(), ServiceError> {
    let Scaling { min_replicas: min, max_replicas: max, queue_depth, .. } = *scaling;
    for (holds, problem) in [
        (min >= 0, "minReplicas must be 0 or more"),
        (max >= 1, "maxReplicas must be 1 or more"),
        (queue_depth >= 1, "queueDepth must be 1 or more"),
    ] {
        if !holds {
            return Err(ServiceError::Field(problem));
        }
    }
    if let Some(latency) = &scaling.latency {
        if !(1..=99).contains(&latency.percentile) {
            return Err(ServiceError::Field("latency.percentile must be between 1 and 99"));
        }
        check_duration("latency.target", &latency.target)?;
    }
    check_duration("scaleToZeroAfter", &scaling.scale_to_zero_after)?;
    if min > max {
        return Err(ServiceError::Field("minReplicas must not exceed maxReplicas"));
    }
    Ok(())
}

fn check_duration(field: &'static str, text: &kembed_crds::Duration) -> Result<(), ServiceError> {
    let duration: Duration = text.parse().map_err(|source| ServiceError::Duration { field, source })?;
    if duration.is_zero() {
        return Err(ServiceError::Field(match field {
            "latency.target" => "latency.target must be longer than zero",
            _ => "scaleToZeroAfter must be longer than zero",
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(scaling: &str) -> String {
        format!(
            "apiVersion: kembed.dev/v1alpha1\nkind: EmbeddingService\nmetadata: {{name: minilm}}\nspec:\n  \
             model: {{uri: hf://a/b}}\n{scaling}"
        )
    }

    fn told(text: &str) -> String {
        let error = anyhow::Error::from(Service::parse(text).expect_err("it cannot be simulated"));
        format!("{error:#}")
    }

    #[test]
    fn a_service_is_read_with_the_defaults_of_its_fields() {
        let service = Service::parse(&yaml("  scaling: {}")).expect("a service");
        assert_eq!((service.name.as_str(), service.target), ("minilm", USUAL_TARGET));
        let settings = Settings {
            min: 0,
            max: 8,
            queue_depth: 16,
            objective: None,
            zero_after: Duration::from_secs(300),
            tunes: true,
        };
        assert_eq!(service.settings, settings);
        let untuned = Service::parse(&yaml("  scaling: {tuning: Off}")).expect("a service");
        assert!(!untuned.settings.tunes, "it is played as it would run");
        let service = Service::parse(&yaml("  scaling: {latency: {target: 200ms}, maxReplicas: 20}"));
        let service = service.expect("a service");
        assert_eq!((service.target, service.settings.max), (Duration::from_millis(200), 20));
        assert_eq!(service.settings.objective.expect("there is one").share, 0.95);
    }

    #[test]
    fn what_cannot_be_simulated_is_told_with_its_reason() {
        for (text, reason) in [
            (yaml(""), "it has no spec.scaling"),
            (yaml("  scaling: {minReplicas: 9}"), "spec.scaling.minReplicas must not exceed maxReplicas"),
            (yaml("  scaling: {minReplicas: -1}"), "spec.scaling.minReplicas must be 0 or more"),
            (yaml("  scaling: {maxReplicas: 0}"), "spec.scaling.maxReplicas must be 1 or more"),
            (yaml("  scaling: {queueDepth: 0}"), "spec.scaling.queueDepth must be 1 or more"),
            (yaml("  scaling: {latency: {target: 200ms, percentile: 100}}"), "latency.percentile must be"),
            (yaml("  scaling: {latency: {target: 0s}}"), "latency.target must be longer than zero"),
            (yaml("  scaling: {latency: {target: soon}}"), "\"soon\" is no duration"),
            (yaml("  scaling: {scaleToZeroAfter: 0s}"), "scaleToZeroAfter must be longer than zero"),
            (yaml("  scaling: {maxReplicas: many}"), "failed to parse it as an EmbeddingService"),
            ("kind: Deployment\napiVersion: apps/v1".to_owned(), "it is \"Deployment\" of \"apps/v1\""),
            ("a: [".to_owned(), "failed to parse it as an EmbeddingService"),
            ("seconds,tokens\n1,2".to_owned(), "failed to parse it as an EmbeddingService"),
        ] {
            assert!(told(&text).contains(reason), "{text}: {}", told(&text));
        }
    }
}
