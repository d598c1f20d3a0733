//! What `helm install` leaves in the cluster.

use anyhow::{Context, bail, ensure};
use e2e::{
    command::{helm, repository},
    installation::{NAMESPACE, RELEASE, installation},
    wait::await_object,
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, api::PostParams};

#[tokio::test]
async fn everything_is_ready() -> anyhow::Result<()> {
    let kembed = installation().await?;
    let deployments = Api::<Deployment>::namespaced(kembed.kube.clone(), NAMESPACE);
    for (name, replicas) in [("kembed-controller", 1), ("kembed-gateway", 2)] {
        // Helm has waited for them; where a machine does many things at once they may be unready for a moment.
        let ready = |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.is_some_and(|status| status.ready_replicas == Some(replicas))
        };
        await_object(deployments.clone(), name, &format!("{name} to be ready"), ready).await?;
    }
    let crds = Api::<CustomResourceDefinition>::all(kembed.kube.clone());
    let crd = crds.get("embeddingservices.kembed.dev").await?;
    let annotations = crd.metadata.annotations.unwrap_or_default();
    ensure!(
        annotations.get("helm.sh/resource-policy").map(String::as_str) == Some("keep"),
        "an uninstall would delete the CRD and with it every EmbeddingService: {annotations:?}"
    );
    let status = helm(&["status", RELEASE, "--namespace", NAMESPACE]).await?;
    ensure!(status.contains("STATUS: deployed"), "helm says otherwise: {status}");
    Ok(())
}

/// Two would undo each other's work on the same services for as long as both are there.
#[tokio::test]
async fn a_second_release_is_refused() -> anyhow::Result<()> {
    installation().await?;
    let second =
        ["install", "second", &repository("charts/kembed"), "--namespace", "second", "--dry-run=server"];
    let without_crd = ["--set", "crds.install=false"];
    for args in [second.to_vec(), [&second[..], &without_crd].concat()] {
        let Err(refused) = helm(&args).await else { bail!("helm would install a second release") };
        let words = format!("{refused:#}");
        ensure!(words.contains("ownership"), "it is refused for another reason: {words}");
    }
    Ok(())
}

#[tokio::test]
async fn accounts_may_not_do_what_they_need_not() -> anyhow::Result<()> {
    let kembed = installation().await?;
    let reviews = Api::<SubjectAccessReview>::all(kembed.kube.clone());
    let forbidden = [
        ("get", "", "secrets", ""),
        ("list", "", "secrets", ""),
        ("watch", "", "secrets", ""),
        ("get", "", "pods", "log"),
        ("create", "", "pods", "exec"),
        ("create", "", "pods", ""),
        ("delete", "apps", "deployments", ""),
        ("delete", "kembed.dev", "embeddingservices", ""),
        ("update", "kembed.dev", "embeddingservices", ""),
        ("create", "", "serviceaccounts", "token"),
        ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
        ("impersonate", "", "users", ""),
    ];
    for account in ["kembed-controller", "kembed-gateway"] {
        for (verb, group, resource, subresource) in forbidden {
            // In all namespaces and in kembed's own.
            for namespace in [None, Some(NAMESPACE)] {
                let review = review(account, verb, group, resource, subresource, namespace);
                let answer = reviews.create(&PostParams::default(), &review).await?;
                let allowed = answer.status.context("a review without an answer")?.allowed;
                ensure!(!allowed, "{account} may {verb} {resource}/{subresource} in {namespace:?}");
            }
        }
    }
    let review = review("kembed-controller", "patch", "kembed.dev", "embeddingservices", "status", None);
    let answer = reviews.create(&PostParams::default(), &review).await?;
    ensure!(
        answer.status.is_some_and(|status| status.allowed),
        "reviews refuse everything: they prove nothing"
    );
    Ok(())
}

fn review(
    account: &str,
    verb: &str,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: Option<&str>,
) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{NAMESPACE}:{account}")),
            groups: Some(vec!["system:serviceaccounts".to_owned(), "system:authenticated".to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()).filter(|name| !name.is_empty()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
