//! `operator simulate`: what would have happened to a service under some traffic, with our policy and with others.

mod args;
mod files;
mod json;
mod league;
mod picture;
mod progress;
mod service;
mod table;

use std::io::Write;

use anyhow::Context;

pub use args::SimulateArgs;

use crate::simulate::{league::League, progress::Progress};

/// Plays each trace to each policy, and tells how it went: a table or JSON on `out`, and pictures in a folder.
///
/// # Errors
/// Traces and services that cannot be read or make no sense, and results that cannot be written.
pub fn run(args: &SimulateArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let traces = files::traces(args)?;
    let service = files::service(&args.service)?;
    let (world, contenders) = (args.world(&service)?, args.contenders());
    let mut leagues = Vec::new();
    for (name, trace) in traces {
        let progress = Progress::new(&name);
        let league = League::play(name, &trace, &world, &service.settings, &contenders, &progress);
        progress.end();
        leagues.push(league);
    }
    if let Some(folder) = &args.out {
        for league in &leagues {
            files::write_picture(folder, &league.name, &picture::draw(league, &service))?;
        }
    }
    let told = match args.json {
        true => json::list(&leagues),
        false => leagues.iter().map(|league| table::draw(league, &service)).collect::<Vec<_>>().join("\n"),
    };
    writeln!(out, "{}", told.trim_end()).context("failed to print the results")
}

#[cfg(test)]
mod tests;
