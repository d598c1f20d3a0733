//! The leader does not hear the gateways any more: what is not known changes no count.

use std::time::Duration;

use anyhow::ensure;
use e2e::{
    TempNamespace, disruption,
    leader::leader,
    load::{Load, Manner},
    service::{minilm, with},
    wait::await_that,
    with_temp_ns,
};
use kembed_crds::EmbeddingService;
use serde_json::json;
use tokio::time::sleep;

use super::ALONE;

/// How long nobody asks while nothing is heard: longer than until a service sleeps that nobody asks.
const UNHEARD: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_leader_that_hears_no_gateway_takes_no_pod_away_and_adds_none() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        let scaling = json!({"minReplicas": 0, "maxReplicas": 3, "scaleToZeroAfter": "5s"});
        ns.apply(with(minilm("minilm"), json!({"scaling": scaling}))).await?;
        ns.await_count("minilm", 1).await?;
        ns.await_known("minilm").await?;
        let load = load(&ns);
        // It may have gone to sleep until then.
        await_that("a first answer", async || Ok((load.answered() > 0).then_some(()))).await?;
        let leader = leader(&ns).await?;
        disruption::gateways_unheard(&leader, async {
            await_told(&ns, "the leader to know nothing", |reason| reason == "LoadUnknown").await?;
            load.stop().await?;
            // Not to wait for something, but to see that nothing happens.
            sleep(UNHEARD).await;
            let service = ns.api::<EmbeddingService>().get("minilm").await?;
            ensure!(service.spec.replicas == 1, "the count is {}", service.spec.replicas);
            Ok(())
        })
        .await?;
        // What the gateways did not get to tell, they tell now.
        await_told(&ns, "the leader to know again", |reason| reason != "LoadUnknown").await
    })
    .await
}

/// Few requests: enough to be active, also where now and then one comes seconds late.
fn load(ns: &TempNamespace) -> Load {
    let manner = Manner { pause: Duration::from_millis(250), retries: 5, ..Manner::of(1) };
    Load::of(manner, &ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name))
}

async fn await_told(ns: &TempNamespace, what: &str, is: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let told = |emb: &EmbeddingService| {
        let scaling = emb.status.as_ref().and_then(|status| status.scaling.as_ref());
        scaling.is_some_and(|scaling| is(&scaling.reason))
    };
    ns.await_service("minilm", what, told).await?;
    Ok(())
}
