//! Measures, on the test cluster: the time from `kubectl apply` to Ready, and the memory of kembed's programs; or how
//! long the first request waits for a service at zero.
//!
//! `e2e/cluster/cluster exec -- target/debug/measure [--wakes 20]`

use std::{env, fs, time::Instant};

use anyhow::Context;
use clap::Parser;
use e2e::{
    TempNamespace,
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { times, wakes } = Args::parse();
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
    // The test cluster has a cgroup of this name.
    let cluster =
        format!("/kembed-cluster-{}/", env::var("CLUSTER_NAME").unwrap_or_else(|_| "kembed".to_owned()));
    for entry in fs::read_dir("/proc").context("failed to list processes")? {
        let process = entry.context("failed to list processes")?.path();
        // What has just ended has no files any more; a process of another user has none for us.
        let read = |file| fs::read_to_string(process.join(file)).unwrap_or_default();
        let Some(program) = program(&read("cmdline")).filter(|_| read("cgroup").contains(&cluster)) else {
            continue;
        };
        let rollup = read("smaps_rollup");
        let mebibytes = ["Rss", "Pss", "Anonymous"].map(|field| format!("{:.1} MiB", of(&rollup, field)));
        println!("| {program} | {} |", mebibytes.join(" | "));
    }
    Ok(())
}

/// Program and subcommand, if it is one of kembed's.
fn program(cmdline: &str) -> Option<String> {
    let mut words = cmdline.split('\0');
    let name = words.next()?.rsplit('/').next()?;
    ["operator", "inference-pod"]
        .contains(&name)
        .then(|| format!("{name} {}", words.next().unwrap_or_default()))
}

/// A field of `smaps_rollup` in MiB; 0 where it is absent.
fn of(rollup: &str, field: &str) -> f64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib =
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
