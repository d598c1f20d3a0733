//! The programs that a person would use: kubectl, helm, and the test cluster's own command.

use std::{env, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::wait::DEADLINE;

/// How long a program may take: more than the limits that helm and kubectl are given as arguments.
const LIMIT: Duration = Duration::from_secs(300);

/// What kubectl and helm say where they did not reach the API server, or that had no time: nothing was done, and they can be
/// asked again.
const NOT_REACHED: [&str; 7] = [
    "TLS handshake timeout",
    "connection refused",
    "connection reset by peer",
    "i/o timeout",
    "too many requests",
    "the server is currently unable to handle the request",
    "failed to download openapi",
];

/// Before they are asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// If it cannot be started or fails; the error holds its arguments and what it wrote to standard error.
pub async fn run(program: &str, args: &[&str], stdin: &str) -> anyhow::Result<String> {
    let what = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {}", what()))?;
    let mut input = child.stdin.take().expect("it was asked to be piped");
    // A program that fails before it reads closes the pipe; its own message says more than ours would.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output =
        timeout(LIMIT, child.wait_with_output()).await.with_context(|| format!("{} hangs", what()))?;
    let output = output.with_context(|| format!("failed to wait for {}", what()))?;
    if !output.status.success() {
        bail!("{} failed: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The real kubectl, again where it does not reach the API server.
///
/// # Errors
/// As [`run`].
pub async fn kubectl(args: &[&str]) -> anyhow::Result<String> {
    kubectl_with(args, "").await
}

/// As [`kubectl`], with something to read.
///
/// # Errors
/// As [`run`].
pub async fn kubectl_with(args: &[&str], stdin: &str) -> anyhow::Result<String> {
    reach("kubectl", args, stdin).await
}

async fn reach(program: &str, args: &[&str], stdin: &str) -> anyhow::Result<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match run(program, args, stdin).await {
            Err(error) if Instant::now() < deadline && did_not_reach(&error) => sleep(PAUSE).await,
            done => return done,
        }
    }
}

fn did_not_reach(error: &anyhow::Error) -> bool {
    let said = error.to_string();
    NOT_REACHED.iter().any(|words| said.contains(words))
}

/// The real helm, again where it does not reach the API server.
///
/// # Errors
/// As [`run`].
pub async fn helm(args: &[&str]) -> anyhow::Result<String> {
    reach("helm", args, "").await
}

/// The test cluster's command (`CLUSTER`, or the one beside this crate), for what only it can do, such as to plug in a
/// GPU.
///
/// # Errors
/// As [`run`].
pub async fn cluster(args: &[&str]) -> anyhow::Result<String> {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/cluster");
    let program = env::var("CLUSTER").unwrap_or_else(|_| ours.to_owned());
    run(&program, args, "").await
}

/// A path from the root of the repository.
pub fn repository(path: &str) -> String {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is below the repository's root");
    root.join(path).to_string_lossy().into_owned()
}
