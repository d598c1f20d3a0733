//! Measures, on the test cluster: the time from `kubectl apply` to Ready, and the memory of kembed's programs; or how
//! long the first request waits for a service at zero; or what clients notice of pods and gateways that come and go.
//!
//! `e2e/cluster/cluster exec -- target/release/measure [--wakes 20 | --disruptions]`

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use e2e::{
    TempNamespace, disruption,
    load::{Load, Manner},
    process::Process,
    service::{MODEL, of_model, serves_with, with},
    with_temp_ns,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// Measures the time from `kubectl apply` to Ready, and the memory of kembed's programs
#[derive(Parser)]
struct Args {
    /// How often to apply each kind of service
    #[arg(long, default_value_t = 10)]
    times: usize,
    /// Measures instead how long a request at zero waits for its vector, so often for each kind of service
    #[arg(long)]
    wakes: Option<usize>,
    /// Measures instead what clients notice while pods and gateways come and go and the API server is away
    #[arg(long, conflicts_with = "wakes")]
    disruptions: bool,
    #[command(flatten)]
    clients: Clients,
}

/// Who asks meanwhile.
#[derive(clap::Args, Clone, Copy)]
struct Clients {
    /// Connections, over each of which one request follows the other
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Requests at least, over all disruptions
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
    /// Pods of the service
    #[arg(long, default_value_t = 4)]
    pods: usize,
    /// Seconds for which the API server is away
    #[arg(long, default_value_t = 60)]
    away: u64,
}

/// How long requests go on though there are not enough, as where most fail.
const LONGEST: Duration = Duration::from_secs(600);

/// Kinds of disruptions.
const DISRUPTIONS: usize = 6;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { times, wakes, disruptions, clients } = Args::parse();
    if disruptions {
        return with_temp_ns(async move |ns| disrupted(&ns, clients).await).await;
    }
    let what = if wakes.is_some() { "request at zero to vector" } else { "apply to Ready" };
    println!("| model from | {what}: median | least | most |\n|---|---|---|---|");
    for (source, uri) in [
        ("a hub in the cluster", format!("hf://{MODEL}")),
        ("an image on the node", "image://kembed.test/minilm:1".to_owned()),
    ] {
        with_temp_ns(async move |ns| {
            let mut seconds = match wakes {
                Some(wakes) => zero_to_vector(&ns, &uri, wakes).await?,
                None => apply_to_ready(&ns, &uri, times).await?,
            };
            seconds.sort_by(f64::total_cmp);
            let median = seconds.get(seconds.len() / 2).context("once at least")?;
            let (least, most) = (seconds[0], seconds[seconds.len() - 1]);
            println!("| {source} | {median:.2} s | {least:.2} s | {most:.2} s |");
            Ok(())
        })
        .await?;
    }
    if wakes.is_none() {
        with_temp_ns(async |ns| memory(&ns).await).await?;
    }
    Ok(())
}

/// Seconds from the start of kubectl until the service says it is ready. Ends with nothing of it left.
async fn apply_to_ready(ns: &TempNamespace, uri: &str, times: usize) -> anyhow::Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        ns.apply(of_model("minilm", uri)).await?;
        ns.await_service("minilm", "the service to be ready", |emb| serves_with(emb, 1)).await?;
        seconds.push(begun.elapsed().as_secs_f64());
        ns.kubectl(&["delete", "emb/minilm"]).await?;
        no_pods(ns).await?;
    }
    Ok(seconds)
}

/// Seconds that a request waits which finds no pod.
async fn zero_to_vector(ns: &TempNamespace, uri: &str, times: usize) -> anyhow::Result<Vec<f64>> {
    ns.apply(with(of_model("minilm", uri), json!({"scaling": {"minReplicas": 0}}))).await?;
    ns.await_serving("minilm", 1).await?;
    let base = format!("http://minilm.{}.svc", ns.name);
    let mut seconds = Vec::new();
    for _ in 0..times {
        ns.to_zero("minilm").await?;
        no_pods(ns).await?;
        let begun = Instant::now();
        ns.kembed.gateway.embed(&base, "minilm", &["hello"]).await?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// Prints what clients notice that do not try again. All ask for the same vector of a small model, so that the machine's
/// time goes to gateways and connections rather than to the model.
async fn disrupted(ns: &TempNamespace, clients: Clients) -> anyhow::Result<()> {
    let Clients { connections, pods, away, .. } = clients;
    println!(
        "| with {connections} connections | requests | failed | a second | median | p99 | longest |\n|---|---|---|---|---|---|---|"
    );
    // From the node, so that new pods cost no download.
    ns.apply(with(of_model("minilm", "image://kembed.test/minilm:1"), json!({"replicas": pods}))).await?;
    ns.await_serving("minilm", pods.try_into().context("more pods than the cluster holds")?).await?;
    let name = "minilm";
    noticed(ns, clients, "a pod is evicted", disruption::evict(ns, name)).await?;
    noticed(ns, clients, "a pod crashes (SIGKILL)", disruption::kill(ns, name)).await?;
    noticed(ns, clients, "the Deployment is rolled", disruption::roll(ns, name)).await?;
    noticed(ns, clients, &format!("{pods} pods become one"), disruption::to_one(ns, name)).await?;
    noticed(ns, clients, "every gateway is rolled", disruption::roll_gateways()).await?;
    let gone = disruption::api_server_away(ns, Duration::from_secs(away));
    noticed(ns, clients, &format!("the API server is away for {away} s"), gone).await
}

/// A row of the table. Requests go on until there are enough, should the event be over sooner.
async fn noticed(
    ns: &TempNamespace,
    clients: Clients,
    what: &str,
    event: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let manner = Manner { pause: Duration::ZERO, alike: true, ..Manner::of(clients.connections) };
    let begun = Instant::now();
    let load = Load::of(manner, &ns.kembed.gateway, &format!("http://minilm.{}.svc", ns.name));
    let ended = event.await.with_context(|| format!("while {what}"));
    let is_enough = || load.answered() >= clients.requests.div_ceil(DISRUPTIONS);
    while ended.is_ok() && !is_enough() && begun.elapsed() < LONGEST {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut outcome = load.end().await?;
    outcome.times.sort();
    let at = |share: f64| {
        let index = (outcome.times.len().saturating_sub(1) as f64 * share) as usize;
        outcome.times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    let (failed, rate) = (outcome.failures.len(), outcome.answered as f64 / begun.elapsed().as_secs_f64());
    let (sent, median, p99, longest) = (outcome.answered + failed, at(0.5), at(0.99), at(1.));
    println!("| {what} | {sent} | {failed} | {rate:.0} | {median:.0} ms | {p99:.0} ms | {longest:.0} ms |");
    if let Some(first) = outcome.failures.first() {
        println!("\nthe first that failed: {first}\n");
    }
    ended
}

async fn no_pods(ns: &TempNamespace) -> anyhow::Result<()> {
    for pod in ns.made_for::<Pod>("minilm").await? {
        ns.await_object(&pod, "the pod to go", |pod: Option<&Pod>| pod.is_none()).await?;
    }
    Ok(())
}

/// Prints what the programs hold with one service that has answered a few requests.
async fn memory(ns: &TempNamespace) -> anyhow::Result<()> {
    ns.apply(of_model("minilm", &format!("hf://{MODEL}"))).await?;
    ns.await_serving("minilm", 1).await?;
    for _ in 0..20 {
        ns.kembed.gateway.embed(&format!("http://minilm.{}", ns.name), "minilm", &["hello", "world"]).await?;
    }
    println!(
        "\n| program | private and shared (RSS) | its share (PSS) | not backed by files |\n|---|---|---|---|"
    );
    for process in Process::all()? {
        let mebibytes = ["Rss", "Pss", "Anonymous"].map(|field| format!("{:.1} MiB", process.memory(field)));
        println!("| {} | {} |", process.program, mebibytes.join(" | "));
    }
    Ok(())
}
