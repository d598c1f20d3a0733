//! Somebody else's object has the name that a service needs.

use anyhow::ensure;
use e2e::{
    service::{is_false, minilm},
    with_temp_ns,
};
use k8s_openapi::api::core::v1::Service;
use kembed_crds::conditions::{ConditionType, Reason};
use serde_json::json;

#[tokio::test]
async fn it_is_left_alone_and_named() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        let theirs = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "minilm", "labels": {"app": "theirs"}},
            "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
        });
        ns.apply(theirs).await?;
        let before = ns.api::<Service>().get("minilm").await?;
        ns.apply(minilm("minilm")).await?;
        let conflict = |emb: &_| is_false(emb, ConditionType::Ready, Reason::NameConflict);
        let service = ns.await_service("minilm", "the conflict to be told", conflict).await?;
        let message =
            e2e::service::condition(&service, ConditionType::Ready).map(|ready| ready.message.as_str());
        ensure!(
            message.is_some_and(|text| text.contains("Service") && text.contains("minilm")),
            "{message:?}"
        );
        let after = ns.api::<Service>().get("minilm").await?;
        ensure!(after == before, "it was changed from {before:?} to {after:?}");

        ns.kubectl(&["delete", "service/minilm"]).await?;
        ns.await_serving("minilm", 1).await?;
        Ok(())
    })
    .await
}
