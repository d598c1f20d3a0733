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
    pub rounds: Vec<Round>,
}

/// One measurement: bare, and the pods right after it.
pub struct Round {
    pub bare: Speed,
    /// Of a bare run that a pause went before. Of such a load the latency is what is compared, and not the rate.
    pub after_pause: Option<AfterPause>,
    pub float: Served,
    pub int8: Served,
    pub arrivals: Vec<Arrivals>,
}

/// Seconds of a bare run after a pause in which its core was idle, and after one in which it was kept busy.
#[derive(Clone, Copy)]
pub struct AfterPause {
    pub idle: f64,
    pub busy: f64,
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

/// Requests that come by chance, at a part of the rate that each pod reached.
pub struct Arrivals {
    pub part: f64,
    pub float: Open,
    pub int8: Open,
}

/// What a pod did with them. All times are in seconds, from when a request was due.
pub struct Open {
    /// Requests a second.
    pub rate: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// The 99th percentile of how late they were sent.
    pub late: f64,
    pub refused: usize,
}

impl Row {
    pub fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// Of bare runs after a pause.
    pub fn after_pause(&self) -> Option<AfterPause> {
        let runs: Vec<_> = self.rounds.iter().map(|r| r.after_pause).collect::<Option<_>>()?;
        let of = |kind: fn(&AfterPause) -> f64| median(runs.iter().map(kind).collect());
        Some(AfterPause { idle: of(|run| run.idle), busy: of(|run| run.busy) })
    }

    /// What of the ceiling is reached.
    pub fn ratio(&self) -> f64 {
        self.median(|r| {
            if r.after_pause.is_some() {
                r.bare.run / r.float.p50
            } else {
                r.float.rows_per_second / r.bare.rows_per_second
            }
        })
    }

    pub fn ratio_by_cpu(&self) -> f64 {
        self.median(|r| r.bare.cpu / r.float.cpu)
    }

    /// How much faster int8 is.
    pub fn times(&self) -> f64 {
        self.median(|r| r.int8.rows_per_second / r.float.rows_per_second)
    }

    pub fn times_by_cpu(&self) -> f64 {
        self.median(|r| r.float.cpu / r.int8.cpu)
    }

    /// Parts of the rate that was reached.
    pub fn parts(&self) -> Vec<f64> {
        self.rounds.first().map(|r| r.arrivals.iter().map(|a| a.part).collect()).unwrap_or_default()
    }

    /// All its lines of all tables.
    pub fn lines(&self) -> String {
        let arrivals = (0..self.parts().len()).map(|i| self.markdown_of_arrivals(i));
        let lines = [self.markdown(), self.markdown_of_int8()].into_iter().chain(arrivals);
        lines.collect::<Vec<_>>().join("\n")
    }

    fn markdown(&self) -> String {
        let after_pause = self.after_pause();
        format!(
            "| {} | {:.0} | {:.0} | {:.0} % | {:.0} % | {} | {} | {} / {} | {} | {} |",
            self.name,
            self.median(|r| r.bare.rows_per_second),
            self.median(|r| r.float.rows_per_second),
            100. * self.ratio(),
            100. * self.ratio_by_cpu(),
            after_pause.map(|_| ms(self.median(|r| r.bare.run))).unwrap_or_default(),
            after_pause.map(|run| format!("{} / {}", ms(run.idle), ms(run.busy))).unwrap_or_default(),
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
            self.times(),
            self.times_by_cpu(),
            ms(self.median(|r| r.int8.p50)),
            ms(self.median(|r| r.int8.p95)),
        )
    }

    fn markdown_of_arrivals(&self, i: usize) -> String {
        let cells = |of: fn(&Arrivals) -> &Open| {
            let median = |value: fn(&Open) -> f64| self.median(|r| value(of(&r.arrivals[i])));
            let times = [median(|o| o.p50), median(|o| o.p95), median(|o| o.p99)].map(ms).join(" / ");
            let refused: usize = self.rounds.iter().map(|r| of(&r.arrivals[i]).refused).sum();
            format!("{:.0} | {times} | {refused}", median(|o| o.rate))
        };
        let late = |r: &Round| r.arrivals[i].float.late.max(r.arrivals[i].int8.late);
        format!(
            "| {:.0} % of what {} reach | {} | {} | {} |",
            100. * self.parts()[i],
            self.name,
            cells(|a| &a.float),
            cells(|a| &a.int8),
            ms(self.median(late)),
        )
    }

    fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|r| {
            json!({
                "bareRowsPerSecond": r.bare.rows_per_second, "bareRunSeconds": r.bare.run,
                "bareRunAfterPauseSeconds": r.after_pause.map(|run| run.idle),
                "bareRunAfterBusyPauseSeconds": r.after_pause.map(|run| run.busy), "bareCpuSeconds": r.bare.cpu,
                "float32": r.float.json(), "int8": r.int8.json(),
                "arrivals": r.arrivals.iter().map(Arrivals::json).collect::<Vec<_>>(),
            })
        });
        json!({"load": self.name, "ratio": self.ratio(), "rounds": rounds.collect::<Vec<_>>()})
    }
}

impl Arrivals {
    fn json(&self) -> Value {
        json!({"part": self.part, "float32": self.float.json(), "int8": self.int8.json()})
    }
}

impl Open {
    fn json(&self) -> Value {
        json!({
            "requestsPerSecond": self.rate, "p50Seconds": self.p50, "p95Seconds": self.p95,
            "p99Seconds": self.p99, "sentLateP99Seconds": self.late, "refused": self.refused,
        })
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
        let lines = |of: fn(&Row) -> String| self.rows.iter().map(of).collect::<Vec<_>>().join("\n");
        let arrivals = |row: &Row| {
            let lines = (0..row.parts().len()).map(|i| row.markdown_of_arrivals(i));
            lines.map(|line| line + "\n").collect::<String>()
        };
        format!(
            "| load | bare, texts/s | pod, texts/s | ratio | ratio by CPU time | bare run, ms | after an idle / busy pause, ms | p50 / p95, ms | health p99, ms | client's CPU a text, ms |\n\
             |---|---|---|---|---|---|---|---|---|---|\n{}\n\n\
             {} threads, medians of {} rounds. A pause is as long as the pod's p50 is over a bare run. {} The weights are {:.0} MiB.\n\n\
             | load | float32, texts/s | int8, texts/s | times float32 | by CPU time | p50 / p95 in int8, ms |\n\
             |---|---|---|---|---|---|\n{}\n\n\
             In int8: {}\n\n\
             | requests come by chance, at | float32, texts/s | p50 / p95 / p99, ms | refused | int8, texts/s | p50 / p95 / p99, ms | refused | sent late, p99, ms |\n\
             |---|---|---|---|---|---|---|---|\n{}",
            lines(Row::markdown),
            self.threads,
            self.starts[0].len(),
            self.start_and_memory(0),
            self.weights,
            lines(Row::markdown_of_int8),
            self.start_and_memory(1),
            self.rows.iter().map(arrivals).collect::<String>(),
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
