//! What all requests depend on goes away and comes back under load. It runs alone, for it disturbs every other
//! test, and after `rbac`: an API server that has just started refuses what it allows a moment later.

mod leader;
mod unheard;

use std::time::Duration;

use anyhow::Context;
use e2e::{
    TempNamespace, disruption,
    load::{Load, Manner},
    service::minilm,
    with_temp_ns,
};
use tokio::{sync::Mutex, time::sleep};

/// Held by the test that disturbs now.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Each asks again as soon as it has an answer, or nearly.
const CLIENTS: usize = 30;

/// Clients while the API server is away.
const MANY: usize = 200;

/// How long a load goes on before a gateway crashes under it.
const BEFORE: Duration = Duration::from_secs(1);

/// How long the API server is away: longer than leases and watches hold.
const AWAY: Duration = Duration::from_secs(60);

/// Of [`MANY`] clients, so that there is time for the cluster too.
const PAUSE: Duration = Duration::from_millis(250);

#[tokio::test]
async fn gateways_are_replaced_and_no_request_fails() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        serving(&ns).await?;
        let load = load(&ns, Manner::of(CLIENTS));
        let done = disruption::roll_gateways().await;
        answered(load, "the gateways were replaced").await?;
        done
    })
    .await
}

/// Clients lose what was on its way over connections to it, and no other.
#[tokio::test]
async fn a_gateway_crashes_and_who_tries_again_is_answered() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        serving(&ns).await?;
        // OpenAI's send a request twice more by default, which is enough where a gateway is back, or known to be gone, within two
        // seconds.
        let load = load(&ns, Manner { retries: 5, ..Manner::of(CLIENTS) });
        // On connections to either of them.
        sleep(BEFORE).await;
        disruption::kill_gateway(&ns).await?;
        ns.await_serving("minilm", 1).await?;
        answered(load, "a gateway crashed").await
    })
    .await
}

#[tokio::test]
async fn the_api_server_is_away_and_no_request_fails() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    with_temp_ns(|ns| async move {
        serving(&ns).await?;
        let load = load(&ns, Manner { pause: PAUSE, alike: true, ..Manner::of(MANY) });
        disruption::api_server_away(&ns, AWAY).await?;
        answered(load, "the API server was away").await?;
        ns.kubectl(&["scale", "emb/minilm", "--replicas=2"]).await?;
        ns.await_serving("minilm", 2).await?;
        Ok(())
    })
    .await
}

async fn serving(ns: &TempNamespace) -> anyhow::Result<()> {
    ns.apply(minilm("minilm")).await?;
    ns.await_serving("minilm", 1).await?;
    Ok(())
}

fn load(ns: &TempNamespace, manner: Manner) -> Load {
    Load::of(manner, &ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name))
}

async fn answered(load: Load, when: &str) -> anyhow::Result<()> {
    let answered = load.stop_after(2 * CLIENTS).await.with_context(|| format!("while {when}"))?;
    eprintln!("while {when}: {answered} requests, all answered");
    Ok(())
}
