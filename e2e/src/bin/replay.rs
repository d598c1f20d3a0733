//! Plays the same arrivals on the test cluster, at pods that compute nothing but take their time, and in simulated time as
//! `operator simulate` does. Prints both, and draws them. Takes eight minutes.
//!
//! `e2e/cluster/cluster exec -- target/release/replay [--out docs/benchmarks]`

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Parser;
use e2e::{
    TempNamespace,
    installation::{install, installation},
    replay::{
        compare::{table, typical},
        drive::drive,
        picture::draw,
        run::{Run, simulate},
        traffic::trace,
    },
    service::{minilm, with},
    stub::of_rate,
    with_temp_ns,
};
use kembed_scaling::{
    Objective, Settings,
    simulate::{Trace, World},
};
use serde_json::json;

/// Tokens a second of a pod. A request of the trace takes 52 ms alone.
const RATE: f64 = 5000.;

/// What 95 of 100 requests are to keep.
const TARGET: Duration = Duration::from_millis(500);

/// From the last request to no pod.
const ZERO_AFTER: Duration = Duration::from_secs(20);

const MOST: u32 = 3;

/// Drawings of what is left to chance in the simulation.
const DRAWINGS: u64 = 60;

/// Plays the same arrivals on the test cluster and in simulated time
#[derive(Parser)]
struct Args {
    /// Folder for the picture
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
    /// Names the random numbers of the arrivals
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { out, seed } = Args::parse();
    let trace = trace(seed);
    installation().await?;
    install(&["inferencePod.image.repository=kembed.test/stub"]).await?;
    let measured = play(trace.clone()).await;
    install(&[]).await?;
    let measured = measured?;
    let start = measured.start().context("no pod was seen to start")?;
    let simulated = simulate(&world(start), &trace, settings(), DRAWINGS);
    println!("{} requests; a pod took {start:.1} s to start\n", trace.arrivals().len());
    println!("{}", table(&measured, &simulated, trace.seconds(), TARGET.as_secs_f64()));
    write(&out, &trace, &measured, typical(&simulated, TARGET.as_secs_f64()))?;
    ensure!(measured.failed == 0, "{} requests failed", measured.failed);
    Ok(())
}

/// On the cluster, from no pod.
async fn play(trace: Trace) -> anyhow::Result<Run> {
    let (put, mut run) = tokio::sync::mpsc::unbounded_channel();
    with_temp_ns(async move |ns: TempNamespace| {
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        let latency = json!({"target": format!("{}ms", TARGET.as_millis()), "percentile": 95});
        let scaling = json!({
            "minReplicas": 0, "maxReplicas": MOST, "scaleToZeroAfter": seconds(ZERO_AFTER), "latency": latency,
        });
        let rate = json!([{"name": "STUB_RATE", "value": RATE.to_string()}]);
        let spec = json!({"scaling": scaling, "podTemplate": {"env": rate}});
        ns.apply(with(minilm("minilm"), spec)).await?;
        ns.await_serving("minilm", 1).await?;
        ns.to_zero("minilm").await?;
        // The receiver is there until this has ended.
        let _ = put.send(drive(&ns, "minilm", &trace).await?);
        Ok(())
    })
    .await?;
    run.recv().await.context("it ended without a result")
}

fn settings() -> Settings {
    let objective = Objective { target: TARGET, share: 0.95 };
    Settings {
        min: 0,
        max: MOST,
        queue_depth: 16,
        objective: Some(objective),
        zero_after: ZERO_AFTER,
        tunes: true,
    }
}

fn world(start: f64) -> World {
    let world = World::of(&settings(), Duration::from_secs_f64(start));
    World { pod: of_rate(RATE), first: Some(0), ..world }
}

fn write(out: &std::path::Path, trace: &Trace, measured: &Run, simulated: &Run) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("failed to make {}", out.display()))?;
    let title = "A service under a generated load: from zero to three pods and back";
    let picture = out.join("replay.svg");
    fs::write(&picture, draw(title, trace, measured, simulated))
        .with_context(|| format!("failed to write {}", picture.display()))
}
