//! How good the policies are: see `--help`.

mod cases;
mod crowd;
mod goals;
mod notes;
mod ours;
mod record;
mod table;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::Parser;

use crate::{
    cases::{Case, Outcome},
    record::Record,
};

/// Plays every kind of traffic to our policy, to its peers at their defaults and to each of their settings in a grid.
#[derive(Parser, Debug)]
pub struct Args {
    /// A trace in addition to the generated ones: its requests cloned 40 times and half as long.
    #[arg(long, env = "KEMBED_TRACE")]
    trace: Option<std::path::PathBuf>,
    /// Only cases in whose name this is found, as in `step` or `20 s`.
    #[arg(long, default_value = "")]
    only: String,
    /// One seed, and the peers at their defaults alone.
    #[arg(long)]
    quick: bool,
    /// Seeds of each generated kind.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from_seed: u64,
    /// Ours alone.
    #[arg(long, conflicts_with = "others")]
    ours: bool,
    /// All others alone.
    #[arg(long, requires = "json")]
    others: bool,
    /// Ours does not tune itself.
    #[arg(long)]
    untuned: bool,
    /// One line of JSON for each result instead of tables.
    #[arg(long)]
    json: bool,
    /// Nobody but ours plays; what all others reached is read from what `--json` wrote before.
    #[arg(long)]
    against: Option<std::path::PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let record = args.against.as_deref().map(record::read).transpose();
    let (cases, record) = match cases::all(&args).and_then(|cases| Ok((cases, record?))) {
        Ok(all) => all,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // First of all, for what the traces need stays with the process.
    let crowd = crowd::goals();
    let outcomes = play(&cases, &args, &record.unwrap_or_default());
    match args.json {
        true => table::print_lines(&outcomes),
        false => table::print(&outcomes, crowd),
    }
    ExitCode::SUCCESS
}

/// Plays all cases on all cores.
fn play(cases: &[Case], args: &Args, record: &Record) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = case.play(args, record);
            eprintln!("{}", outcome.name);
            outcomes.lock().expect("nobody panics while holding it").push(outcome);
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (0..cores).for_each(|_| {
            scope.spawn(work);
        });
    });
    let mut outcomes = outcomes.into_inner().expect("nobody panics while holding it");
    outcomes.sort_by(|a, b| a.name.cmp(&b.name));
    outcomes
}
