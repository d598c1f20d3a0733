//! The controller while something goes on: its memory and CPU time, what it writes and asks for, and how long its looks take.

use std::{
    future::Future,
    net::IpAddr,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    audit::ACCOUNT,
    client::Client,
    command::cluster,
    installation::{NAMESPACE, controllers},
    namespace::TempNamespace,
    process::Process,
};

/// Between two looks at it.
const PERIOD: Duration = Duration::from_secs(1);

/// Above the rows.
pub const HEAD: &str = "| | seconds | status writes a second: mean | most | reads a second | writes a second | a look: mean | CPU, of a core | most memory |\n|---|---|---|---|---|---|---|---|---|";

/// The controller that leads.
#[derive(Clone, Debug)]
pub struct Watched {
    metrics: Client,
    process: Process,
}

/// It at one moment; what is counted is counted since it began.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    at: Instant,
    /// Reconciliations after which all was as it should be.
    pub reconciled: f64,
    /// Writes of a status.
    pub status_writes: f64,
    looks: f64,
    look_seconds: f64,
    cpu: Duration,
    memory: f64,
}

/// Requests to the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    reads: usize,
    writes: usize,
}

impl Watched {
    /// The only controller there is.
    ///
    /// # Errors
    /// If there is none or more than one.
    pub async fn find(ns: &TempNamespace) -> anyhow::Result<Self> {
        let pods = Api::<Pod>::namespaced(ns.kembed.kube.clone(), NAMESPACE);
        let pods = pods.list(&controllers()).await.context("failed to list the controllers")?;
        // One that was evicted stays, and runs no more.
        let runs = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        let pod = pods.into_iter().find(runs).context("no controller runs")?;
        let address: IpAddr =
            pod.status.and_then(|status| status.pod_ip).context("it has no address")?.parse()?;
        let mut processes = Process::all()?;
        processes.retain(|process| process.program == "operator controller");
        ensure!(processes.len() == 1, "there are {} controllers", processes.len());
        Ok(Self { metrics: Client::to(address)?, process: processes.remove(0) })
    }

    /// Looks at it.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn seen(&self) -> anyhow::Result<Seen> {
        let text = self.metrics.get("http://controller:8081/metrics").await?.success()?.body;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            // A family has no line before the first of its kind.
            line.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.)
        };
        Ok(Seen {
            at: Instant::now(),
            reconciled: number("kembed_controller_reconciliations_total{outcome=\"Applied\"}"),
            status_writes: number("kembed_controller_status_writes_total"),
            looks: number("kembed_autoscaler_look_seconds_count"),
            look_seconds: number("kembed_autoscaler_look_seconds_sum"),
            cpu: self.process.cpu(),
            memory: self.process.memory("Rss"),
        })
    }

    /// Prints a row of what it does while `work` goes on.
    ///
    /// # Errors
    /// Those of `work`, or if the controller does not answer.
    pub async fn row<T>(
        &self,
        what: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let before = Asked::until_now().await?;
        let mut seen = vec![self.seen().await?];
        let (mut work, mut ticks) = (pin!(work), interval(PERIOD));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = ticks.tick() => seen.push(self.seen().await?),
            }
        };
        seen.push(self.seen().await?);
        println!("{}", line(what, &seen, before, Asked::until_now().await?)?);
        done
    }
}

impl Asked {
    /// By the API server's audit log, as long as that was not begun anew.
    async fn until_now() -> anyhow::Result<Self> {
        Ok(Self::of(&cluster(&["logs", "audit"]).await?))
    }

    fn of(log: &str) -> Self {
        let mut asked = Self::default();
        for line in log.lines().filter(|line| line.contains(ACCOUNT)) {
            let is = |verb: &str| line.contains(&format!("\"verb\":\"{verb}\""));
            if ["get", "list", "watch"].into_iter().any(is) {
                asked.reads += 1;
            } else {
                asked.writes += 1;
            }
        }
        asked
    }
}

fn line(what: &str, seen: &[Seen], before: Asked, after: Asked) -> anyhow::Result<String> {
    let (first, last) = (seen.first().context("never seen")?, seen.last().context("never seen")?);
    let seconds = |from: &Seen, to: &Seen| to.at.duration_since(from.at).as_secs_f64().max(1e-3);
    let rate = |from: &Seen, to: &Seen| (to.status_writes - from.status_writes) / seconds(from, to);
    let second = seen.windows(2).filter(|pair| seconds(&pair[0], &pair[1]) > PERIOD.as_secs_f64() / 2.);
    let most = second.map(|pair| rate(&pair[0], &pair[1])).fold(0., f64::max);
    let took = seconds(first, last);
    let asked = |before: usize, after: usize| {
        let asked = after.checked_sub(before).context("the audit log was begun anew meanwhile")?;
        anyhow::Ok(asked as f64 / took)
    };
    let (reads, writes) = (asked(before.reads, after.reads)?, asked(before.writes, after.writes)?);
    let look = (last.look_seconds - first.look_seconds) / (last.looks - first.looks).max(1.) * 1e3;
    let cpu = 100. * last.cpu.saturating_sub(first.cpu).as_secs_f64() / took;
    let memory = seen.iter().map(|seen| seen.memory).fold(0., f64::max);
    let mean = rate(first, last);
    Ok(format!(
        "| {what} | {took:.0} | {mean:.1} | {most:.1} | {reads:.1} | {writes:.1} | {look:.1} ms | {cpu:.0} % | {memory:.0} MiB |"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_controllers_alone() {
        let line = |user: &str, verb: &str| {
            format!("{{\"verb\":\"{verb}\",\"user\":{{\"username\":\"{user}\"}}}}\n")
        };
        let log = [line(ACCOUNT, "get"), line("somebody", "get"), line(ACCOUNT, "patch")].concat();
        assert_eq!(Asked::of(&log), Asked { reads: 1, writes: 1 });
    }

    #[test]
    fn a_row_has_what_came_between_its_ends() {
        let at = Instant::now();
        let seen = |second: u64, writes: f64| Seen {
            at: at + Duration::from_secs(second),
            reconciled: 0.,
            status_writes: writes,
            looks: second as f64,
            look_seconds: 0.002 * second as f64,
            cpu: Duration::from_millis(100 * second),
            memory: 50. - second as f64,
        };
        let after = Asked { reads: 40, writes: 20 };
        let row =
            line("quiet", &[seen(0, 5.), seen(1, 9.), seen(4, 9.)], Asked::default(), after).expect("a row");
        assert_eq!(row, "| quiet | 4 | 1.0 | 4.0 | 10.0 | 5.0 | 2.0 ms | 10 % | 50 MiB |");
        assert!(line("quiet", &[seen(0, 5.)], after, Asked::default()).is_err());
    }
}
