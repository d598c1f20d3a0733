//! Bare ONNX Runtime in this process: the same graph, sessions of one thread each, nothing around them.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use inference_pod::{
    backend::{onnx::load_library, operators::operators},
    export::{Exported, export},
    model::{Overrides, Precision, Recipe, recipe::Texts, weights::Weights},
};
use kembed_int8::Factor;
use ort::{environment::Environment, session::Session, value::Tensor};

use super::{
    client::{percentile, sorted},
    process::cpu,
    window::{Crew, Member, Piece, Window, warm_up},
};

/// Rows of a batch, of which the best counts.
pub const ROWS: [usize; 5] = [1, 2, 4, 8, 32];

/// Tokens of a batch beyond which no more rows are tried: a core is as fast at 256 as it gets (docs/benchmarks/cpu.md).
const ENOUGH: usize = 512;

pub struct Ceiling {
    sessions: Vec<Session>,
}

/// Rows of one length that run together.
#[derive(Clone, Copy)]
pub struct Batch {
    rows: usize,
    length: usize,
}

/// What a core does before it runs a row.
#[derive(Clone, Copy)]
pub enum Before {
    Nothing,
    /// It is idle for so long.
    Idle(Duration),
    /// It waits for so long, and is busy with that.
    Busy(Duration),
}

/// How fast rows of one length run.
#[derive(Clone, Copy)]
pub struct Speed {
    /// By all sessions together.
    pub rows_per_second: f64,
    /// Seconds of one run of a batch: the median.
    pub run: f64,
    /// Seconds of CPU that a row takes.
    pub cpu: f64,
}

impl Ceiling {
    /// So many sessions, each with weights of its own.
    pub fn new(model: &Path, library: &Path, precision: Precision, sessions: usize) -> Self {
        let environment = load_library(library).expect("the library loads");
        let config = fs::read_to_string(model.join("config.json")).expect("the model has it");
        let overrides = Overrides { precision, ..Overrides::default() };
        let recipe = Recipe::read(Texts { config: &config, ..Texts::default() }, &overrides);
        let weights = Weights::open(&[model.join("model.safetensors")]).expect("good weights");
        let mut graph = export(&recipe.expect("a good file"), &weights).expect("it can be exported");
        let factors: Arc<[Factor]> = std::mem::take(&mut graph.factors).into();
        let session = || {
            session(&environment, &graph, &factors).unwrap_or_else(|e| panic!("no session: {}", e.message()))
        };
        Self { sessions: (0..sessions).map(|_| session()).collect() }
    }

    /// Runs batches on all sessions at once, for so long.
    pub fn speed(&mut self, Batch { rows, length }: Batch, time: Duration) -> Speed {
        let before = cpu("self");
        let window = after_warm_up(time);
        let crew = Crew::new(window, self.sessions.len());
        let runs: Vec<_> = std::thread::scope(|scope| {
            let threads = self.sessions.iter_mut().map(|session| {
                let member = crew.member();
                scope.spawn(move || repeat(member, Before::Nothing, || run(session, rows, length)))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        Speed {
            rows_per_second: window.rate(&runs) * rows as f64,
            run: percentile(&sorted(runs.iter().map(Piece::took).collect()), 0.5),
            cpu: (cpu("self") - before) / (runs.len() * rows) as f64,
        }
    }

    /// Runs single rows on one session.
    pub fn single(&mut self, length: usize, pause: Before, time: Duration) -> Speed {
        let before = cpu("self");
        let crew = Crew::new(after_warm_up(time), 1);
        let session = &mut self.sessions[0];
        let runs = repeat(crew.member(), pause, || run(session, 1, length));
        let cpu = (cpu("self") - before) / runs.len() as f64;
        let run = percentile(&sorted(runs.iter().map(Piece::took).collect()), 0.5);
        Speed { rows_per_second: run.recip(), run, cpu }
    }

    /// The batches that rows of these lengths run fastest in, each of one length.
    pub fn best(&mut self, lengths: &[usize], time: Duration) -> Vec<Batch> {
        let each = time.div_f64((lengths.len() * ROWS.len()) as f64);
        let best = |&length: &usize| {
            let tried = ROWS.iter().map(|&rows| Batch { rows, length });
            let tried = tried.filter(|batch| batch.rows == 1 || batch.rows * length <= ENOUGH);
            let speeds = tried.map(|batch| (batch, self.speed(batch, each).rows_per_second));
            speeds.max_by(|a, b| a.1.total_cmp(&b.1)).expect("one row is tried").0
        };
        lengths.iter().map(best).collect()
    }

    /// The speed of rows of mixed lengths, as many of each batch's.
    pub fn of_mix(&mut self, batches: &[Batch], time: Duration) -> Speed {
        let count = batches.len() as f64;
        let speeds: Vec<_> = batches.iter().map(|batch| self.speed(*batch, time.div_f64(count))).collect();
        Speed {
            rows_per_second: count / speeds.iter().map(|speed| speed.rows_per_second.recip()).sum::<f64>(),
            run: speeds.iter().map(|speed| speed.run).sum::<f64>() / count,
            cpu: speeds.iter().map(|speed| speed.cpu).sum::<f64>() / count,
        }
    }
}

impl Batch {
    pub fn new(rows: usize, length: usize) -> Self {
        Self { rows, length }
    }
}

fn after_warm_up(time: Duration) -> Window {
    Window::new(Instant::now() + warm_up(time), time)
}

impl Before {
    fn wait(self) {
        match self {
            Self::Nothing => {}
            Self::Idle(pause) => std::thread::sleep(pause),
            Self::Busy(pause) => {
                let end = Instant::now() + pause;
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

/// Runs until all are through.
fn repeat(mut member: Member<'_>, pause: Before, mut run: impl FnMut()) -> Vec<Piece> {
    while member.goes_on() {
        pause.wait();
        let from = Instant::now();
        run();
        member.did(Piece { from, to: Instant::now() });
    }
    member.pieces()
}

fn session(environment: &Environment, graph: &Exported, factors: &Arc<[Factor]>) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_memory_pattern(false)?
        .with_config_entry(
            "session.model_external_initializers_file_folder_path",
            graph.folder.to_string_lossy(),
        )?
        .with_operators(operators(factors.clone())?)?
        .commit_from_memory(&graph.onnx)
}

fn run(session: &mut Session, rows: usize, length: usize) {
    let tensor =
        |x: i64| Tensor::from_array(([rows, length], vec![x; rows * length])).expect("it fits its shape");
    let inputs: Vec<_> = session
        .inputs()
        .iter()
        .map(|input| {
            let x =
                if input.name() == "input_ids" { 2023 } else { i64::from(input.name() == "attention_mask") };
            (input.name().to_owned(), tensor(x))
        })
        .collect();
    session.run(inputs).unwrap_or_else(|e| panic!("it does not run: {}", e.message()));
}
