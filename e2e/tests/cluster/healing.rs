//! Somebody edits or deletes what kembed made.

use e2e::{service::minilm, with_temp_ns};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};

#[tokio::test]
async fn it_comes_back_as_it_was() -> anyhow::Result<()> {
    with_temp_ns(|ns| async move {
        ns.apply(minilm("minilm")).await?;
        ns.await_serving("minilm", 1).await?;

        ns.kubectl(&["scale", "deployment/minilm", "--replicas=3"]).await?;
        let one = |deployment: Option<&Deployment>| {
            deployment.is_some_and(|deployment| {
                let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                let status = deployment.status.as_ref();
                wanted == Some(1) && status.is_some_and(|status| status.replicas == Some(1))
            })
        };
        ns.await_object("minilm", "the Deployment to have one pod again", one).await?;

        let uid = |deployment: &Deployment| deployment.metadata.uid.clone();
        let old = uid(&ns.api::<Deployment>().get("minilm").await?);
        ns.kubectl(&["delete", "deployment/minilm", "--wait=false"]).await?;
        let another = |deployment: Option<&Deployment>| deployment.is_some_and(|found| uid(found) != old);
        ns.await_object("minilm", "another Deployment", another).await?;

        // Services are not watched: a missing one is made again within minutes, or when the object is annotated.
        ns.kubectl(&["delete", "service/minilm"]).await?;
        ns.kubectl(&["annotate", "emb/minilm", "example.com/look=again"]).await?;
        let host = |service: &Service| service.spec.as_ref().and_then(|spec| spec.external_name.clone());
        let back = ns
            .await_object("minilm", "the Service to come back", |service: Option<&Service>| service.is_some())
            .await?;
        let meant = back.as_ref().and_then(host);

        let edit = r#"{"spec": {"externalName": "elsewhere.example.com"}}"#;
        ns.kubectl(&["patch", "service/minilm", "--type=merge", "--patch", edit]).await?;
        ns.kubectl(&["annotate", "--overwrite", "emb/minilm", "example.com/look=once-more"]).await?;
        let as_meant = |service: Option<&Service>| meant.is_some() && service.and_then(host) == meant;
        ns.await_object("minilm", "the Service to lead to the gateways again", as_meant).await?;

        let pods = ns.made_for::<Pod>("minilm").await?;
        ns.kubectl(&["delete", "pods", "--selector=kembed.dev/service=minilm", "--wait=false"]).await?;
        for pod in pods {
            ns.await_object(&pod, "the pod to go", |pod: Option<&Pod>| pod.is_none()).await?;
        }
        ns.await_serving("minilm", 1).await?;
        Ok(())
    })
    .await
}
