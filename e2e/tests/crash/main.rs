//! The controller dies in the middle of its work, several times. It runs alone, for it disturbs every other test.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{
    TempNamespace,
    command::kubectl,
    container,
    installation::NAMESPACE,
    leader::{delete_lease, leader},
    service::{minilm, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentSpec},
    core::v1::{ConfigMap, Pod, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt;
use serde_json::json;
use tokio::{sync::Mutex, time::timeout};

/// Held by the test that kills controllers now.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How long a client waits that leaves: enough for a busy machine to bring it to a gateway, and less than a Lease holds.
const HELD: Duration = Duration::from_secs(3);

/// Nobody leads for as long after the leader was killed, at least.
const LED: Duration = Duration::from_secs(4);

/// A client that asks once and leaves, while nobody leads.
#[tokio::test]
async fn the_next_leader_knows_who_asked_at_zero() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"scaling": {}}))).await?;
        ns.await_serving("minilm", 1).await?;
        // Gateways know it too: one that does not might ask the pod that goes.
        ns.to_zero("minilm").await?;
        let url = format!("http://minilm.{}.svc/v1/embeddings", ns.name);
        let leader = leader(&ns).await?;

        let began = Instant::now();
        kill(&leader).await?;
        await_that("a client to leave that was held", || async {
            let asked = ns.kembed.gateway.post(&url, json!({"model": "minilm", "input": "hello"}));
            let Ok(answer) = timeout(HELD, asked).await else { return Ok(Some(())) };
            // Where the API server is slow, a gateway says that it cannot wake anybody: clients ask again.
            let is_answered = answer?.status.is_success();
            // Where it was slow for long, another leads by now.
            ensure!(!is_answered || began.elapsed() > LED, "nobody leads, and yet there is a vector");
            Ok(is_answered.then_some(()))
        })
        .await?;
        delete_lease().await?;
        ns.await_serving("minilm", 1).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_killed_controller_finishes_what_it_began() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        ns.apply(minilm("calm")).await?;
        ns.await_serving("calm", 1).await?;

        // The next controller waits until the Lease of the dead one has run out...
        kill_during(&ns, "at-once", async || Ok(())).await?;
        // ... and has not to where somebody deletes it.
        kill_during(&ns, "first-write", async || {
            await_that("the controller to write", || async {
                Ok(any_object(&ns, "first-write").await?.then_some(()))
            })
            .await
        })
        .await?;
        delete_lease().await?;
        kill_during(&ns, "pod-there", async || {
            await_that("a pod", || async { Ok(ns.made_for::<Pod>("pod-there").await?.pop()) }).await?;
            Ok(())
        })
        .await?;
        delete_lease().await?;

        for name in ["at-once", "first-write", "pod-there"] {
            ns.await_serving(name, 1).await?;
            same_as_calm(&ns, name).await?;
        }
        Ok(())
    })
    .await
}

/// Applies a service and kills the controller that leads when `moment` has come.
async fn kill_during(
    ns: &TempNamespace,
    name: &str,
    moment: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let leader = leader(ns).await?;
    ns.apply(minilm(name)).await?;
    moment().await?;
    kill(&leader).await
}

/// Ends a controller and its pod, which from one moment on does nothing any more.
async fn kill(controller: &Pod) -> anyhow::Result<()> {
    // Stopped first: one that is killed may be started again before the node hears that its pod is gone, and leads on, for the
    // Lease is held by the pod's name; and when it hears, that one gives the Lease away as who is told to end does.
    container::signal(controller, "SIGSTOP").await?;
    // A new pod starts at once; the old one's container would wait longer after each crash.
    let name = controller.name_any();
    kubectl(&["--namespace", NAMESPACE, "delete", "pod", &name, "--grace-period=0", "--force"]).await?;
    container::kill(controller).await?;
    Ok(())
}

/// Whether the controller has written anything for the service.
async fn any_object(ns: &TempNamespace, name: &str) -> anyhow::Result<bool> {
    Ok(!ns.made_for::<Deployment>(name).await?.is_empty()
        || !ns.made_for::<Service>(name).await?.is_empty()
        || !ns.made_for::<ConfigMap>(name).await?.is_empty()
        || !ns.made_for::<NetworkPolicy>(name).await?.is_empty()
        || !ns.made_for::<PodDisruptionBudget>(name).await?.is_empty())
}

/// Compares what was made for the service with what was made for the undisturbed one.
async fn same_as_calm(ns: &TempNamespace, name: &str) -> anyhow::Result<()> {
    let calm = spec_as(ns, "calm", "NAME").await?;
    let disturbed = spec_as(ns, name, "NAME").await?;
    ensure!(calm == disturbed, "the Deployments differ:\n{calm}\n{disturbed}");
    // The ConfigMap follows the recorded space.
    let one_of_each = async || {
        let counts = [
            ns.made_for::<Deployment>(name).await?.len(),
            ns.made_for::<Service>(name).await?.len(),
            ns.made_for::<ConfigMap>(name).await?.len(),
            ns.made_for::<NetworkPolicy>(name).await?.len(),
            ns.made_for::<PodDisruptionBudget>(name).await?.len(),
            ns.made_for::<Pod>(name).await?.len(),
        ];
        Ok((counts == [1; 6]).then_some(()))
    };
    await_that(&format!("one object of each kind for {name}"), one_of_each).await
}

/// The Deployment's spec as text, with another name in place of its own.
async fn spec_as(ns: &TempNamespace, name: &str, other: &str) -> anyhow::Result<String> {
    let spec: Option<DeploymentSpec> = ns.api::<Deployment>().get(name).await?.spec;
    let text = serde_json::to_string(&spec)?.replace(&format!("\"{name}"), &format!("\"{other}"));
    Ok(text.replace(&format!("/{name}\""), &format!("/{other}\"")))
}
