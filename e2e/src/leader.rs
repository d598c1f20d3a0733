//! The controller that leads, for tests that disturb it.

use anyhow::Context;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, ResourceExt};

use crate::{
    TempNamespace,
    command::kubectl,
    container,
    installation::{NAMESPACE, controllers},
    wait::await_that,
};

/// What the controllers' leader holds.
const LEASE: &str = "kembed-controller";

/// The controller that leads, once one does that is not about to go, and Kubernetes knows by which container: it leads before the
/// node has told.
///
/// # Errors
/// If none does, or Kubernetes does not tell.
pub async fn leader(ns: &TempNamespace) -> anyhow::Result<Pod> {
    let leases = Api::<Lease>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
    let pods = Api::<Pod>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
    await_that("a controller to lead", || async {
        let lease = leases.get_opt(LEASE).await.context("failed to get the Lease")?;
        let holder = lease.and_then(|lease| lease.spec?.holder_identity);
        let pods = pods.list(&controllers()).await.context("failed to list the controllers")?;
        let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && container::runs(pod);
        Ok(pods.into_iter().find(|pod| Some(pod.name_any()) == holder && stays(pod)))
    })
    .await
}

/// Lets another controller lead at once.
///
/// # Errors
/// With what kubectl says.
pub async fn delete_lease() -> anyhow::Result<()> {
    kubectl(&["--namespace", NAMESPACE, "delete", "lease", LEASE]).await?;
    Ok(())
}
