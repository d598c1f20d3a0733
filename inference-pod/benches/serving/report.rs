//! The results, for people and for programs.

use serde_json::{Value, json};

use super::ceiling::Speed;

pub struct Report {
    pub threads: usize,
    pub rows: Vec<Row>,
    /// Seconds from the start of a process to ready: in float32, and in int8.
    pub starts: [Vec<f64>; 2],
    /// MiB: when ready, after all loads, and at most; in float32, and in int8.
    pub memory: [[f64; 3]; 2],
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

/// One measurement: bare, and the pods right after it.
pub struct Round {
    pub bare: Speed,
    pub float: Served,
    pub int8: Served,
}

/// What a pod did. All times are in seconds.
pub struct Served {
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
            if self.latency_counts {
                r.bare.run / r.float.p50
            } else {
                r.float.rows_per_second / r.bare.rows_per_second
            }
        })
    }

    fn markdown(&self) -> String {
        format!(
            "| {} | {:.0} | {:.0} | {:.0} % | {:.0} % | {} | {} / {} | {} | {} |",
            self.name,
            self.median(|r| if self.latency_counts { r.bare.run.recip() } else { r.bare.rows_per_second }),
            self.median(|r| r.float.rows_per_second),
            100. * self.ratio(),
            100. * self.median(|r| r.bare.cpu / r.float.cpu),
            if self.latency_counts { ms(self.median(|r| r.bare.run)) } else { String::new() },
            ms(self.median(|r| r.float.p50)),
            ms(self.median(|r| r.float.p95)),
            ms(self.median(|r| r.float.health)),
            ms(self.median(|r| r.float.client)),
        )
    }

    /// In int8, beside the same in float32.
    fn markdown_of_int8(&self) -> String {
        format!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {} / {} |",
            self.name,
            self.median(|r| r.float.rows_per_second),
            self.median(|r| r.int8.rows_per_second),
            self.median(|r| r.int8.rows_per_second / r.float.rows_per_second),
            self.median(|r| r.float.cpu / r.int8.cpu),
            ms(self.median(|r| r.int8.p50)),
            ms(self.median(|r| r.int8.p95)),
        )
    }

    fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|r| {
            json!({
                "bareRowsPerSecond": r.bare.rows_per_second, "bareRunSeconds": r.bare.run,
                "bareCpuSeconds": r.bare.cpu, "float32": r.float.json(), "int8": r.int8.json(),
            })
        });
        json!({"load": self.name, "ratio": self.ratio(), "rounds": rounds.collect::<Vec<_>>()})
    }
}

impl Served {
    fn json(&self) -> Value {
        json!({
            "rowsPerSecond": self.rows_per_second, "p50Seconds": self.p50, "p95Seconds": self.p95,
            "healthP99Seconds": self.health, "cpuSeconds": self.cpu, "clientCpuSeconds": self.client,
        })
    }
}

impl Report {
    pub fn markdown(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::markdown).collect();
        let int8: Vec<_> = self.rows.iter().map(Row::markdown_of_int8).collect();
        format!(
            "| load | bare, texts/s | pod, texts/s | ratio | ratio by CPU time | bare run, ms | p50 / p95, ms | health p99, ms | client's CPU a text, ms |\n\
             |---|---|---|---|---|---|---|---|---|\n{}\n\n\
             {} threads, medians of {} rounds. {} The weights are {:.0} MiB.\n\n\
             | load | float32, texts/s | int8, texts/s | times float32 | by CPU time | p50 / p95 in int8, ms |\n\
             |---|---|---|---|---|---|\n{}\n\n\
             In int8: {}",
            rows.join("\n"),
            self.threads,
            self.starts[0].len(),
            self.start_and_memory(0),
            self.weights,
            int8.join("\n"),
            self.start_and_memory(1),
        )
    }

    fn start_and_memory(&self, pod: usize) -> String {
        let (start, [fresh, after, most]) = (median(self.starts[pod].clone()), self.memory[pod]);
        format!(
            "Start to ready {start:.2} s. Memory: {fresh:.0} MiB when ready, {after:.0} after all loads, {most:.0} at most."
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

fn ms(seconds: f64) -> String {
    format!("{:.1}", seconds * 1e3)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
