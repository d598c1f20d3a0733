//! The controller that leads is killed, or stopped and continued.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::{
    TempNamespace, audit, container, disruption,
    installation::{NAMESPACE, install},
    leader::leader,
    service::{is_false, minilm, with},
    wait::await_that,
    with_temp_ns,
};
use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::PodDisruptionBudget},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kembed_crds::{
    EmbeddingService,
    conditions::{ConditionType, Reason},
};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use super::ALONE;

/// How long the leader is stopped: longer than its Lease holds, and less than Kubernetes bears one that does not answer.
const STOPPED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_leader_is_killed_while_somebody_waits_at_zero() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        // One that was never killed before is started again at once.
        controllers(1).await?;
        ns.apply(with(minilm("minilm"), json!({"scaling": {"minReplicas": 0}}))).await?;
        ns.await_serving("minilm", 1).await?;
        ns.to_zero("minilm").await?;
        let leader = leader(&ns).await?;
        let began = Instant::now();
        container::kill(&leader).await?;
        // Ten seconds are the goal, on a machine that has time; without a leader it would be for ever.
        ns.wake("minilm").await?;
        let took = began.elapsed();
        eprintln!("from the leader's end to a vector for who waited at zero: {:.1} s", took.as_secs_f64());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_leader_that_was_stopped_goes_on_and_writes_nothing() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        controllers(2).await?;
        let result = stopped(&ns).await;
        result.and(controllers(1).await)
    })
    .await
}

async fn stopped(ns: &TempNamespace) -> anyhow::Result<()> {
    let scaling = |least| json!({"scaling": {"minReplicas": least, "maxReplicas": 3}});
    ns.apply(with(minilm("minilm"), scaling(0))).await?;
    ns.await_serving("minilm", 1).await?;
    ns.to_zero("minilm").await?;
    let old = leader(ns).await?;
    container::signal(&old, "SIGSTOP").await?;
    let began = Instant::now();
    let followed = follow(ns, scaling(2)).await;
    sleep(STOPPED.saturating_sub(began.elapsed())).await;
    let goes_on = container::signal(&old, "SIGCONT").await;
    followed?;
    // Where all that took longer than Kubernetes bears, it has ended already, and a new one is in its place.
    goes_on.unwrap_or_else(|error| eprintln!("the old leader did not get to go on: {error:#}"));

    // It finds that another leads, and ends; what it knew and decided until then comes to nothing.
    let pods = Api::<Pod>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
    let before = container::restarts(&old);
    await_that("the old leader to end", || async {
        let pod = pods.get_opt(&old.name_any()).await.context("failed to get the controller")?;
        Ok(pod.is_none_or(|pod| container::restarts(&pod) > before).then_some(()))
    })
    .await?;
    let service = ns.api::<EmbeddingService>().get("minilm").await?;
    ensure!(service.spec.replicas == 2, "the count is {}", service.spec.replicas);
    Ok(())
}

/// Of a service at rest: what somebody has changed before is made right, and nothing else is written.
#[tokio::test]
async fn who_leads_next_writes_what_others_changed_and_nothing_else() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        ns.apply(with(minilm("minilm"), json!({"replicas": 0}))).await?;
        let settled =
            |service: &EmbeddingService| is_false(service, ConditionType::Progressing, Reason::Settled);
        ns.await_service("minilm", "it to have settled", settled).await?;
        let before = audit::changes(&ns.name, "minilm").await?;
        // Who leads now does not look at it for minutes, for it watches no budgets.
        let edit = r#"{"spec": {"maxUnavailable": 3}}"#;
        ns.kubectl(&["patch", "poddisruptionbudget/minilm", "--type=merge", "--patch", edit]).await?;
        disruption::roll_controllers().await?;
        let as_built = |budget: Option<&PodDisruptionBudget>| {
            let spec = budget.and_then(|budget| budget.spec.as_ref());
            spec.is_some_and(|spec| spec.max_unavailable == Some(IntOrString::Int(1)))
        };
        ns.await_object("minilm", "the budget to be as it was", as_built).await?;
        // Of the objects of a service the Deployment comes last: by the time that another service has one, it was looked at.
        ns.apply(with(minilm("after"), json!({"replicas": 0}))).await?;
        ns.await_service("after", "it to have settled", settled).await?;

        let after = audit::changes(&ns.name, "minilm").await?;
        let count = |of: &[String], kind: &str| of.iter().filter(|changed| *changed == kind).count();
        let budget = "poddisruptionbudgets";
        ensure!(count(&after, budget) > count(&before, budget), "the audit log does not tell of the budget");
        let others = |of: &[String]| of.len() - count(of, budget);
        ensure!(others(&after) == others(&before), "written before: {before:?}, and in all: {after:?}");
        Ok(())
    })
    .await
}

/// The other controller leads once the Lease has run out: it wakes the service for who waits, and does what the spec asks for.
async fn follow(ns: &TempNamespace, spec: serde_json::Value) -> anyhow::Result<()> {
    let began = Instant::now();
    ns.wake("minilm").await?;
    let took = began.elapsed();
    eprintln!("from the leader's end to a vector, by a standby: {:.1} s", took.as_secs_f64());
    ns.apply(with(minilm("minilm"), spec)).await?;
    ns.await_serving("minilm", 2).await?;
    Ok(())
}

/// So many new controllers.
async fn controllers(count: u32) -> anyhow::Result<()> {
    install(&[&format!("controller.replicas={count}")]).await?;
    disruption::roll_controllers().await
}
