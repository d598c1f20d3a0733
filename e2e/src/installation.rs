//! kembed, the model hub and a collector of traces in the test cluster, installed as a user would: by helm.

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::{Api, Client as Kube, api::ListParams};
use tokio::sync::OnceCell;

use crate::{
    client::Client,
    collector_client::CollectorClient,
    command::{helm, kubectl, kubectl_with, repository},
    hub_client::HubClient,
    wait::await_that,
};

/// Namespace of the release.
pub const NAMESPACE: &str = "kembed-system";
/// Name of the release.
pub const RELEASE: &str = "kembed";
/// Namespace of the model hub.
const HUB_NAMESPACE: &str = "model-hub";
/// Namespace of the collector of traces.
const COLLECTOR_NAMESPACE: &str = "traces";

/// The release's namespace.
const RESTRICTED: &str = r#"{
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "kembed-system", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
}"#;

/// What tests talk to.
#[derive(Clone)]
pub struct Installation {
    /// The API server, as an administrator.
    pub kube: Kube,
    /// The gateway's Service.
    pub gateway: Client,
    /// Where models come from.
    pub hub: HubClient,
    /// Where traces go to of programs that are told so.
    pub collector: CollectorClient,
}

impl Installation {
    /// A client for each gateway that is ready, by its pod's own address and port.
    ///
    /// # Errors
    /// If the pods cannot be listed.
    pub async fn gateways(&self) -> anyhow::Result<Vec<Client>> {
        let pods = Api::<Pod>::namespaced(self.kube.clone(), NAMESPACE);
        let pods = pods.list(&gateways()).await.context("failed to list the gateways")?;
        pods.into_iter().filter_map(ready_address).map(Client::to).collect()
    }
}

fn ready_address(pod: Pod) -> Option<IpAddr> {
    let status = pod.status.filter(|_| pod.metadata.deletion_timestamp.is_none())?;
    let ready = |condition: &PodCondition| condition.type_ == "Ready" && condition.status == "True";
    status.pod_ip.filter(|_| status.conditions.iter().flatten().any(ready))?.parse().ok()
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    gateway: IpAddr,
    hub: IpAddr,
    collector: IpAddr,
}

/// Installs kembed, the hub and the collector unless an earlier test of this process did, and connects to them. Connections belong to
/// the runtime of the test that made them, so each test has its own.
///
/// # Errors
/// If the installation fails; then every test fails with the same words.
pub async fn installation() -> anyhow::Result<Installation> {
    static INSTALLED: OnceCell<Result<Addresses, String>> = OnceCell::const_new();
    // Only the first call can install the provider; that the others cannot is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let addresses =
        INSTALLED.get_or_init(|| async { set_up().await.map_err(|error| format!("{error:#}")) }).await;
    let addresses = addresses.as_ref().map_err(|error| anyhow!("kembed is not installed: {error}"))?;
    Ok(Installation {
        kube: Kube::try_default().await.context("failed to connect to the cluster; is KUBECONFIG set?")?,
        gateway: Client::to(addresses.gateway)?,
        hub: HubClient(Client::to(addresses.hub)?),
        collector: CollectorClient(Client::to(addresses.collector)?),
    })
}

async fn set_up() -> anyhow::Result<Addresses> {
    for manifest in ["hub", "collector"] {
        kubectl(&["apply", "--filename", &repository(&format!("e2e/manifests/{manifest}.yaml"))]).await?;
    }
    // Pods of the release must be such as the strictest of the Pod Security Standards allows.
    kubectl_with(&["apply", "--filename=-"], RESTRICTED).await?;
    install(&[]).await?;
    for (namespace, name) in
        [(HUB_NAMESPACE, "deployment/hub"), (COLLECTOR_NAMESPACE, "deployment/collector")]
    {
        kubectl(&["--namespace", namespace, "rollout", "status", name, "--timeout=240s"]).await?;
    }
    Ok(Addresses {
        gateway: address(NAMESPACE, "kembed-gateway").await?,
        hub: address(HUB_NAMESPACE, "hub").await?,
        collector: address(COLLECTOR_NAMESPACE, "collector").await?,
    })
}

/// `helm upgrade --install` of the chart with the values of the tests and these settings (`key=value`), until nothing acts by
/// earlier ones.
///
/// # Errors
/// If not everything becomes ready.
pub async fn install(settings: &[&str]) -> anyhow::Result<()> {
    let (chart, values) = (repository("charts/kembed"), repository("e2e/manifests/values.yaml"));
    let mut args = vec!["upgrade", "--install", RELEASE, &chart, "--namespace", NAMESPACE];
    args.extend(["--values", &values, "--wait", "--timeout", "240s"]);
    args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    helm(&args).await?;
    await_end_of_earlier_controllers().await
}

/// helm waits for the new ones alone. One of the earlier ones may lead until it ends, and makes what it was configured to make.
async fn await_end_of_earlier_controllers() -> anyhow::Result<()> {
    let deployment = format!("deployment/{RELEASE}-controller");
    kubectl(&["--namespace", NAMESPACE, "rollout", "status", &deployment, "--timeout=240s"]).await?;
    let kube = Kube::try_default().await.context("failed to connect to the cluster")?;
    let pods = Api::<Pod>::namespaced(kube, NAMESPACE);
    await_that("the controllers of before to end", || async {
        let pods = pods.list(&controllers()).await.context("failed to list the controllers")?;
        let ends = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        Ok((!pods.iter().any(ends)).then_some(()))
    })
    .await
}

/// Selects the pods of the release's controller.
#[must_use]
pub fn controllers() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/component=controller")
}

/// Selects the release's gateways.
#[must_use]
pub fn gateways() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/component=gateway")
}

async fn address(namespace: &str, service: &str) -> anyhow::Result<IpAddr> {
    let args = ["--namespace", namespace, "get", "service", service, "--output=jsonpath={.spec.clusterIP}"];
    let text = kubectl(&args).await?;
    text.parse().with_context(|| format!("Service {service} has no address but {text:?}"))
}
