//! Measures what the controller does with thousands of services of which some are active: its memory and CPU time, what it
//! writes and asks of the API server, and how long its looks take. Pods are on fake nodes, and this process answers for them.
//!
//! `e2e/cluster/cluster exec -- target/release/many [--services 5000] [--active 50]`

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use e2e::{
    TempNamespace,
    command::cluster,
    crowd::Crowd,
    disruption,
    load::{Load, Manner},
    stub::fake_nodes,
    wait::await_that,
    watched::{HEAD, Seen, Watched},
    with_temp_ns,
};
use futures::future::join_all;
use tokio::time::sleep;

/// How long the controller may take for the objects of one service, on a machine that does other things too.
const EACH: Duration = Duration::from_millis(500);

/// With nothing written for so long, all is written.
const SETTLED: Duration = Duration::from_secs(5);

/// How long it may take besides, as to begin to lead.
const LEAST: Duration = Duration::from_secs(60);

/// Measures what the controller does with many services
#[derive(Clone, Parser)]
struct Args {
    /// Services that there are
    #[arg(long, default_value_t = 5000)]
    services: usize,
    /// Namespaces that they are in
    #[arg(long, default_value_t = 5)]
    namespaces: usize,
    /// Of the services, those that are asked
    #[arg(long, default_value_t = 50)]
    active: usize,
    /// How long they are asked, in seconds
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How long nobody asks, in seconds: each service is looked at once in 300
    #[arg(long, default_value_t = 300)]
    quiet: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    with_temp_ns(async move |ns| {
        fake_nodes::answer().await?;
        let nodes = args.active.div_ceil(100) + 1;
        cluster(&["fake-nodes", &nodes.to_string()]).await?;
        let crowd = Crowd::new(&ns, args.namespaces, args.services).await?;
        let result = measure(&ns, &crowd, &args).await;
        crowd.delete(&ns.kembed.kube).await?;
        cluster(&["kubectl", "delete", "nodes", "--selector=type=kwok"]).await?;
        result
    })
    .await
}

async fn measure(ns: &TempNamespace, crowd: &Crowd, args: &Args) -> anyhow::Result<()> {
    println!("{} services in {} namespaces\n\n{HEAD}", args.services, args.namespaces);
    let watched = Watched::find(ns).await?;
    let before = watched.seen().await?.status_writes;
    let made = async {
        crowd.make(&ns.kembed.kube).await?;
        until(&watched, args.services, |seen| seen.status_writes - before).await?;
        settled(&watched).await
    };
    watched.row("they are made", made).await?;
    let wait = async |seconds: u64| {
        sleep(Duration::from_secs(seconds)).await;
        anyhow::Ok(())
    };
    watched.row("nobody asks", wait(args.quiet)).await?;

    let manner = Manner { pause: Duration::from_millis(500), retries: 5, ..Manner::of(1) };
    let load = |number| Load::of(manner, &ns.kembed.gateway, &crowd.base(number));
    let loads: Vec<Load> = (0..args.active).map(load).collect();
    watched.row(&format!("{} wake at once and are asked", args.active), wait(args.seconds)).await?;
    let outcomes = join_all(loads.into_iter().map(Load::end)).await;
    let outcomes = outcomes.into_iter().collect::<anyhow::Result<Vec<_>>>()?;

    // Another process leads from now on, which knows nothing yet.
    disruption::roll_controllers().await?;
    let alone = async || Ok(Watched::find(ns).await.ok());
    let watched = await_that("the controller before it to end", alone).await?;
    let begun = until(&watched, args.services, |seen| seen.reconciled);
    watched.row("another controller begins", begun).await?;
    watched.row("it has begun", wait(args.seconds)).await?;
    let answered: usize = outcomes.iter().map(|outcome| outcome.answered).sum();
    let failures: Vec<&String> = outcomes.iter().flat_map(|outcome| &outcome.failures).collect();
    println!("\n{answered} requests were answered, and {} were not", failures.len());
    if let Some(first) = failures.first() {
        println!("The first that was not: {first}");
    }
    Ok(())
}

/// Waits until so many services have got there.
async fn until(watched: &Watched, services: usize, got: impl Fn(&Seen) -> f64) -> anyhow::Result<()> {
    let deadline = Instant::now() + LEAST + EACH * u32::try_from(services)?;
    loop {
        let there = got(&watched.seen().await?);
        if there >= services as f64 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {there} of {services} services got there");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until nothing is written any more.
async fn settled(watched: &Watched) -> anyhow::Result<()> {
    let (mut written, mut since) = (watched.seen().await?.status_writes, Instant::now());
    while since.elapsed() < SETTLED {
        sleep(Duration::from_millis(500)).await;
        let now = watched.seen().await?.status_writes;
        if now > written {
            (written, since) = (now, Instant::now());
        }
    }
    Ok(())
}
