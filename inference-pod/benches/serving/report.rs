//! The results, for people and for programs.

use serde_json::{Value, json};

use super::ceiling::Speed;

pub struct Report {
    pub threads: usize,
    pub rows: Vec<Row>,
    /// Seconds from the start of a process to ready.
    pub starts: Vec<f64>,
    /// MiB: when ready, after all loads, and at most.
    pub memory: [f64; 3],
    /// MiB.
    pub weights: f64,
}

/// One load.
pub struct Row {
    pub name: &'static str,
    /// Whether the latency is what is compared, and not the rate.
    pub latency_counts: bool,
    pub rounds: Vec<Round>,
}

/// One measurement: bare, and the pod right after it. All times are in seconds.
pub struct Round {
    pub bare: Speed,
    pub rows_per_second: f64,
    pub p50: f64,
    pub p95: f64,
    /// The 99th percentile of `/health/ready` meanwhile.
    pub health: f64,
    /// Of the pod, for a row.
    pub cpu: f64,
    /// Of the one that asks, for a row.
    pub client: f64,
}

impl Row {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    fn ratio(&self) -> f64 {
        self.median(|r| {
            if self.latency_counts { r.bare.run / r.p50 } else { r.rows_per_second / r.bare.rows_per_second }
        })
    }

    fn markdown(&self) -> String {
        let ms = |seconds: f64| format!("{:.1}", seconds * 1e3);
        format!(
            "| {} | {:.0} | {:.0} | {:.0} % | {:.0} % | {} | {} / {} | {} | {} |",
            self.name,
            self.median(|r| if self.latency_counts { r.bare.run.recip() } else { r.bare.rows_per_second }),
            self.median(|r| r.rows_per_second),
            100. * self.ratio(),
            100. * self.median(|r| r.bare.cpu / r.cpu),
            if self.latency_counts { ms(self.median(|r| r.bare.run)) } else { String::new() },
            ms(self.median(|r| r.p50)),
            ms(self.median(|r| r.p95)),
            ms(self.median(|r| r.health)),
            ms(self.median(|r| r.client)),
        )
    }

    fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|r| {
            json!({
                "bareRowsPerSecond": r.bare.rows_per_second, "bareRunSeconds": r.bare.run, "bareCpuSeconds": r.bare.cpu,
                "rowsPerSecond": r.rows_per_second, "p50Seconds": r.p50, "p95Seconds": r.p95,
                "healthP99Seconds": r.health, "cpuSeconds": r.cpu, "clientCpuSeconds": r.client,
            })
        });
        json!({"load": self.name, "ratio": self.ratio(), "rounds": rounds.collect::<Vec<_>>()})
    }
}

impl Report {
    pub fn markdown(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::markdown).collect();
        let [fresh, after, most] = self.memory;
        format!(
            "| load | bare, texts/s | pod, texts/s | ratio | ratio by CPU time | bare run, ms | p50 / p95, ms | health p99, ms | client's CPU a text, ms |\n\
             |---|---|---|---|---|---|---|---|---|\n{}\n\n\
             {} threads, medians of {} rounds. Start to ready {:.2} s. Memory: {fresh:.0} MiB when ready, {after:.0} after \
             all loads, {most:.0} at most; the weights are {:.0} MiB.",
            rows.join("\n"),
            self.threads,
            self.starts.len(),
            median(self.starts.clone()),
            self.weights,
        )
    }

    pub fn json(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let report = json!({
            "threads": self.threads, "startSeconds": self.starts, "memoryMiB": self.memory, "weightsMiB": self.weights,
            "loads": rows,
        });
        format!("{report:#}\n")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
