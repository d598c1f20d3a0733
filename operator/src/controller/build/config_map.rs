//! The ConfigMap: `<name>-space`, which tells later pods the recorded vector space and the revision to load.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{super::validate::Service, meta};

/// Key of the recorded space.
pub(super) const KEY: &str = "space.json";

pub(super) fn name(service: &Service) -> String {
    format!("{}-space", service.name)
}

pub(super) fn build(service: &Service) -> Option<ConfigMap> {
    let recorded = service.recorded.as_ref()?;
    let json = serde_json::to_string(recorded).expect("two strings always serialise");
    Some(ConfigMap {
        metadata: meta(service, name(service)),
        data: Some([(KEY.to_owned(), json)].into()),
        ..ConfigMap::default()
    })
}
