//! An edit of the spec.

use anyhow::{Context, ensure};
use e2e::{
    load::Load,
    service::{minilm, with},
    with_temp_ns,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use serde_json::json;

#[tokio::test]
async fn an_edit_replaces_pods_and_no_request_fails() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;
        let before = ns.made_for::<Pod>("minilm").await?;
        let load = Load::start(&ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name));

        let template = json!({"podTemplate": {"labels": {"team": "search"}, "env": [{"name": "COLOUR", "value": "red"}]}});
        ns.apply(with(minilm("minilm"), template)).await?;
        let rolled_out = |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            let template = deployment.and_then(|deployment| deployment.spec.as_ref()).map(|spec| &spec.template);
            let labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
            labels.is_some_and(|labels| labels.get("team").is_some_and(|team| team == "search"))
                && status.is_some_and(|status| {
                    status.observed_generation == deployment.and_then(|deployment| deployment.metadata.generation)
                        && (status.updated_replicas, status.replicas, status.ready_replicas)
                            == (Some(1), Some(1), Some(1))
                })
        };
        ns.await_object("minilm", "the new pod to take over", rolled_out).await?;
        for pod in before {
            ns.await_object(&pod, "the old pod to go", |pod: Option<&Pod>| pod.is_none()).await?;
        }
        load.stop_after(10).await.context("during the rollout")?;

        let colours = "--output=jsonpath={.items[*].spec.containers[0].env[?(@.name==\"COLOUR\")].value}";
        let colours = ns.kubectl(&["get", "pods", "--selector=team=search", colours]).await?;
        ensure!(colours == "red", "the new pod has COLOUR={colours:?}");
        ns.await_serving("minilm", 1).await?;
        Ok(())
    })
    .await
}
